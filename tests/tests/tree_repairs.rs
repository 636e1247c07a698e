//! Small trees as in `tree_cases`: how editors save, and what people do with what a repair shows.

use kith_tests::script::{Row, plays};

const SAVES: &[Row] = &[
    (
        "saving by a rename over counts as editing, on both sides",
        "write a 1",
        &[("desk: save a 2 | lap: save a 3", "a=3, a (conflict desk 12.00)=2")],
    ),
    (
        "saving by a rename over counts as editing, on one side",
        "write a 1",
        &[
            ("desk: save a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            ("lap: save a 4", "a=4, a (conflict desk 12.00)=2"),
        ],
    ),
    (
        "saving by a rename over, later than an edit",
        "write a 1",
        &[("desk: edit a 2 | lap: save a 3", "a=3, a (conflict desk 12.00)=2")],
    ),
    (
        "both save the same bytes",
        "write a 1",
        &[("desk: save a 2 | lap: save a 2", "a=2"), ("lap: save a 3", "a=3")],
    ),
    (
        "three save",
        "write a 1",
        &[(
            "desk: save a 2 | lap: save a 3 | box: save a 4",
            "a=4, a (conflict desk 12.00)=2, a (conflict lap 12.01)=3",
        )],
    ),
    (
        "one saves several times",
        "write a 1",
        &[("desk: save a 2; save a 3 | lap: save a 4", "a=4, a (conflict desk 12.01)=3")],
    ),
    (
        "both save several times, and one edits in between",
        "write a 1",
        &[(
            "desk: save a 2; save a 3; edit a 4 | lap: save a 5; edit a 6; save a 7",
            "a=7, a (conflict desk 12.02)=4",
        )],
    ),
    (
        "a copy of a file whose own bytes are those of what replaced it",
        "write a 1",
        &[
            ("lap: edit a 2 | desk: edit a 3; save a 3; open a", "a=3, a (conflict lap 12.00)=2"),
            ("desk: close a 4", "a=4, a (conflict lap 12.00)=2"),
            ("desk: edit a 5 | lap: rm 'a (conflict lap 12.00)'", "a=5"),
        ],
    ),
    (
        "a save meets a removal",
        "write a 1",
        &[("desk: rm a | lap: save a 2", "a=2"), ("desk: rm a", "")],
    ),
    ("a save meets a move", "write a 1", &[("desk: save a 2 | lap: mv a b", "a=2, b=1")]),
    (
        "a save over one of two links leaves the other",
        "write a 1; ln a b",
        &[("desk: save a 2 | lap: edit b 3", "a=2, b=3")],
    ),
    (
        "both save over one of two links",
        "write a 1; ln a b",
        &[("desk: save a 2 | lap: save b 3", "a=2, b=3, b (conflict desk 11.00)=1")],
    ),
    (
        "a save in a directory that is being removed",
        "mkdir d; write d/a 1",
        &[("desk: rm -r d | lap: save d/a 2", "d/, d/a=2")],
    ),
    (
        "a save of a file that is moved and edited",
        "write a 1",
        &[("desk: save a 2 | lap: mv a b; edit b 3", "a=2, b=3")],
    ),
    (
        "the name that an unfinished save takes over is kept until it is finished",
        "write a 1",
        &[
            (
                "desk: create a~; mv a~ a | lap: edit a 3",
                "desk: a=3, a (conflict desk 12.01)=? | a=3",
            ),
            ("desk: finish a~ 2", "a=3, a (conflict desk 12.01)=2"),
        ],
    ),
    (
        "two unfinished saves",
        "write a 1",
        &[(
            "desk: create a~; mv a~ a; finish a~ 2 | lap: create b~; mv b~ a; finish b~ 3",
            "a=3, a (conflict desk 12.02)=2",
        )],
    ),
];

const REPAIRS_AND_CHANGES: &[Row] = &[
    (
        "a conflict copy's own conflict",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            (
                "desk: edit 'a (conflict desk 12.00)' 4 | lap: edit 'a (conflict desk 12.00)' 5",
                "a=3, a (conflict desk 12.00)=5, \
                 a (conflict desk 12.00) (conflict desk 13.00)=4",
            ),
        ],
    ),
    (
        "a conflict copy is removed on one side and edited on the other",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            (
                "desk: rm 'a (conflict desk 12.00)' | lap: edit 'a (conflict desk 12.00)' 5",
                "a=3, a (conflict desk 12.00)=5",
            ),
        ],
    ),
    (
        "a conflict copy is removed on both sides",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            ("desk: rm 'a (conflict desk 12.00)' | lap: rm 'a (conflict desk 12.00)'", "a=3"),
        ],
    ),
    (
        "a conflict copy becomes a file while the original is edited",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            ("desk: mv 'a (conflict desk 12.00)' b | lap: edit a 4", "a=4, b=2"),
        ],
    ),
    (
        "a conflict copy becomes a file after the original was edited",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            ("lap: edit a 4 | desk: mv 'a (conflict desk 12.00)' b", "a=4, b=2"),
        ],
    ),
    (
        "a conflict copy is removed while the original is edited",
        "write a 1; ln a b",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3 x2, b=3 x2, a (conflict desk 12.00)=2"),
            ("lap: edit b 4 | desk: rm 'a (conflict desk 12.00)'", "a=4 x2, b=4 x2"),
        ],
    ),
    (
        "a conflict copy is removed before the original is edited",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            ("desk: rm 'a (conflict desk 12.00)' | lap: edit a 4", "a=4"),
        ],
    ),
    (
        "a conflict copy takes the original's place",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            ("box: mv 'a (conflict desk 12.00)' a", "a=2"),
        ],
    ),
    (
        "a conflict copy gets a hard link",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            (
                "desk: ln 'a (conflict desk 12.00)' b | lap: edit 'a (conflict desk 12.00)' 4",
                "a=3, a (conflict desk 12.00)=4 x2, b=4 x2",
            ),
        ],
    ),
    (
        "the original goes while its copy is edited",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            ("desk: rm a | lap: edit 'a (conflict desk 12.00)' 4", "a (conflict desk 12.00)=4"),
        ],
    ),
    (
        "two settle the same copy, and go on with it",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            (
                "desk: settle 'a (conflict desk 12.00)' | lap: settle 'a (conflict desk 12.00)'",
                "a=3, a (conflict desk 12.00)=2",
            ),
            ("desk: mv a b | box: edit a 5", "b=5, a (conflict desk 12.00)=2"),
        ],
    ),
    (
        "a labelled file is edited on both sides",
        "",
        &[
            ("desk: write a 1 | lap: write a 2", "a=1, a (lap)=2"),
            (
                "desk: edit 'a (lap)' 3 | lap: edit 'a (lap)' 4",
                "a=1, a (lap)=4, a (lap) (conflict desk 13.00)=3",
            ),
        ],
    ),
    (
        "a labelled file is moved while the one with the name goes",
        "",
        &[
            ("desk: write a 1 | lap: write a 2", "a=1, a (lap)=2"),
            ("desk: rm a | lap: mv 'a (lap)' b", "b=2"),
        ],
    ),
    (
        "a third file of a name comes while two are repaired",
        "",
        &[
            ("desk: write a 1 | lap: write a 2", "a=1, a (lap)=2"),
            ("desk: mv 'a (lap)' b; rm a; write a 3 | box: edit a 4", "a=4, a (desk)=3, b=2"),
        ],
    ),
    (
        "a union is removed on one side and filled on the other",
        "",
        &[
            ("desk: mkdir d; write d/x 1 | lap: mkdir d; write d/y 2", "d/, d/x=1, d/y=2"),
            ("desk: rm -r d | lap: edit d/y 3", "d/, d/y=3"),
        ],
    ),
    (
        "a union is moved on both sides",
        "",
        &[
            ("desk: mkdir d; write d/x 1 | lap: mkdir d; write d/y 2", "d/, d/x=1, d/y=2"),
            ("desk: mv d e | lap: mv d f", "f/, f/x=1, f/y=2"),
        ],
    ),
    (
        "a union of which one half was removed before it was one",
        "mkdir d; write d/x 1",
        &[
            ("desk: rm -r d | lap: mv d e; mkdir d; write d/y 2", "d/, d/y=2, e/"),
            ("desk: mv d e", "e/, e/y=2"),
        ],
    ),
    (
        "a file in conflict, under a taken name, in a directory that was removed",
        "mkdir d; write d/a 1; write b 5",
        &[
            (
                "desk: rm -r d | lap: edit d/a 2; mv b d/b | box: edit d/a 3; write d/b 6",
                "d/, d/a=3, d/a (conflict lap 12.01)=2, d/b=5, d/b (box)=6",
            ),
            (
                "pad: mv 'd/a (conflict lap 12.01)' c | desk: mv d e",
                "c=2, e/, e/a=3, e/b=5, e/b (box)=6",
            ),
        ],
    ),
    (
        "a file that is kept is edited and removed again",
        "write a 1; ln a b",
        &[
            ("desk: rm a; rm b | lap: edit a 2", "b=2"),
            ("desk: rm b | lap: edit b 3", "b=3"),
            ("desk: mv b c | lap: rm b", "c=3"),
        ],
    ),
    (
        "what is in a directory that a cycle shows is kept when that is removed",
        "mkdir d; mkdir e",
        &[
            ("desk: mv d e/d | lap: mv e d/e", "e/, e/d/"),
            ("desk: rm -r e | lap: write e/d/x 1", "e/, e/d/, e/d/x=1"),
        ],
    ),
    (
        "an editor's save over a file in conflict",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            (
                "desk: save a 4 | lap: save a 5",
                "a=5, a (conflict desk 12.00)=2, a (conflict desk 13.00)=4",
            ),
        ],
    ),
];

#[test]
fn saves_of_editors() {
    plays(SAVES);
}

#[test]
fn repairs_and_later_changes() {
    plays(REPAIRS_AND_CHANGES);
}
