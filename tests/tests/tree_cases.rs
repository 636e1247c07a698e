//! Small trees, changed on several devices at once, and what all of them show after that: the rules
//! of the view, as a person meets them. How to read a row is in `kith_tests::script`.

use kith_tests::script::{Row, plays};

const TWO_VERSIONS: &[Row] = &[
    (
        "concurrent edits are both kept, the later is the file",
        "write a.txt 1",
        &[("desk: edit a.txt 2 | lap: edit a.txt 3", "a.txt=3, a (conflict desk 12.00).txt=2")],
    ),
    (
        "concurrent edits to the same bytes are one",
        "write a 1",
        &[("desk: edit a 2 | lap: edit a 2", "a=2")],
    ),
    (
        "who has seen an edit replaces it, also with a clock that is behind",
        "write a 1",
        &[("desk: edit a 2", "a=2"), ("lap: edit a 3", "a=3"), ("desk: edit a 1", "a=1")],
    ),
    (
        "one side's last edit stands for all it made",
        "write a 1",
        &[("desk: edit a 2; edit a 3 | lap: edit a 4; edit a 5", "a=5, a (conflict desk 12.01)=3")],
    ),
    (
        "an edit through one hard link meets one through another",
        "write a 1; ln a b",
        &[("desk: edit a 2 | lap: edit b 3", "a=3 x2, b=3 x2, a (conflict desk 12.00)=2")],
    ),
    (
        "the copies stand beside the first name that is left",
        "write a 1; ln a b",
        &[("desk: edit a 2 | lap: edit b 3; rm a", "b=3, b (conflict desk 12.00)=2")],
    ),
    (
        "an edit and a change of mode are both kept",
        "write a 1",
        &[("desk: edit a 2 | lap: chmod a 600", "a=2 600")],
    ),
    (
        "of two changes of mode the later counts",
        "write a 1; ln a b",
        &[("desk: chmod a 755 | lap: chmod b 600", "a=1 x2 600, b=1 x2 600")],
    ),
    (
        "a file that stays open goes on from what it was opened at",
        "write a 1",
        &[
            ("desk: open a | lap: edit a 3", "a=3"),
            ("desk: close a 2", "a=2, a (conflict lap 12.01)=3"),
            ("desk: close a 4", "a=4, a (conflict lap 12.01)=3"),
            ("lap: edit a 5", "a=5, a (conflict lap 12.01)=3"),
        ],
    ),
];

const MANY_VERSIONS: &[Row] = &[
    (
        "three versions at once are all kept",
        "write a 1",
        &[(
            "desk: edit a 2 | lap: edit a 3 | box: edit a 4",
            "a=4, a (conflict desk 12.00)=2, a (conflict lap 12.01)=3",
        )],
    ),
    (
        "three versions at once, made in another order",
        "write a 1",
        &[(
            "box: edit a 4 | desk: edit a 2 | lap: edit a 3",
            "a=3, a (conflict box 12.00)=4, a (conflict desk 12.01)=2",
        )],
    ),
    (
        "four versions at once, of a file with two names",
        "write a 1; ln a b",
        &[(
            "pad: edit b 5 | box: edit a 4 | lap: edit b 3 | desk: edit a 2",
            "a=2 x2, b=2 x2, a (conflict pad 12.00)=5, a (conflict box 12.01)=4, \
             a (conflict lap 12.02)=3",
        )],
    ),
    (
        "of three versions two have the same bytes",
        "write a 1",
        &[("desk: edit a 2 | lap: edit a 3 | box: edit a 2", "a=2, a (conflict lap 12.01)=3")],
    ),
    (
        "a version that went into another is no third one",
        "write a 1",
        &[
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 12.00)=2"),
            (
                "lap: edit a 4 | box: edit a 5",
                "a=5, a (conflict desk 12.00)=2, a (conflict lap 13.00)=4",
            ),
        ],
    ),
];

const REMOVALS: &[Row] = &[
    (
        "what is saved to an open file survives that it was removed elsewhere meanwhile",
        "write a 1",
        &[("desk: open a | lap: rm a", ""), ("desk: close a 2", "a=2")],
    ),
    (
        "an edit survives a removal that did not know of it",
        "write a 1",
        &[("desk: rm a | lap: edit a 2", "a=2"), ("box: rm a", "")],
    ),
    (
        "an edit survives a later removal that did not know of it",
        "write a 1",
        &[("desk: edit a 2 | lap: rm a", "a=2"), ("desk: edit a 3", "a=3")],
    ),
    (
        "an edit survives two removals",
        "write a 1",
        &[("desk: rm a | lap: edit a 2 | box: rm a", "a=2")],
    ),
    (
        "two edits survive a removal",
        "write a 1",
        &[("desk: rm a | lap: edit a 2 | box: edit a 3", "a=3, a (conflict lap 12.01)=2")],
    ),
    ("two removals are one", "write a 1", &[("desk: rm a | lap: rm a", "")]),
    (
        "a removal does not undo an edit that it saw",
        "write a 1",
        &[("desk: edit a 2", "a=2"), ("desk: rm a | lap: rm a", "")],
    ),
    (
        "a move survives a removal that did not know of it",
        "write a 1",
        &[("desk: rm a | lap: mv a b", "b=1")],
    ),
    ("a move survives a later removal too", "write a 1", &[("desk: mv a b | lap: rm a", "b=1")]),
    ("a new link survives a removal", "write a 1", &[("desk: rm a | lap: ln a b", "b=1")]),
    (
        "a change of mode does not survive a removal",
        "write a 1",
        &[("desk: rm a | lap: chmod a 600", "")],
    ),
    (
        "of two links removed at once the later removed stays",
        "write a 1; ln a b",
        &[("desk: rm a | lap: rm b", "b=1")],
    ),
    (
        "a file whose links all went stays gone where another removed one of them",
        "write a 1; ln a b",
        &[("desk: rm a; rm b | lap: rm a", "")],
    ),
    (
        "an edit brings back the link that was removed last",
        "write a 1; ln a b",
        &[("desk: rm a; rm b | lap: edit a 2", "b=2")],
    ),
    (
        "an edit through the link that is left",
        "write a 1; ln a b",
        &[("desk: rm a | lap: edit b 2", "b=2"), ("lap: rm b", "")],
    ),
    (
        "a link is removed, and moved elsewhere",
        "write a 1; ln a b",
        &[("desk: rm a | lap: mv a c", "b=1 x2, c=1 x2")],
    ),
    (
        "an edit brings a file back with all that it had",
        "write a 1",
        &[("desk: rm a | lap: edit a 2 | box: edit a 3; rm a", "a=3, a (conflict lap 12.01)=2")],
    ),
    (
        "a link that leads nowhere is removed and moved",
        "symlink s x",
        &[("desk: rm s | lap: mv s t", "t->x"), ("desk: rm t", "")],
    ),
];

const REMOVED_DIRECTORIES: &[Row] = &[
    (
        "a removed directory in which something was made is shown",
        "mkdir d; mkdir d/e",
        &[("desk: rm -r d | lap: write d/e/x 1", "d/, d/e/, d/e/x=1")],
    ),
    (
        "what was kept so can be removed as anything else",
        "mkdir d; mkdir d/e",
        &[("desk: rm -r d | lap: write d/e/x 1", "d/, d/e/, d/e/x=1"), ("box: rm -r d", "")],
    ),
    (
        "a directory that was kept stays when what kept it goes",
        "mkdir d",
        &[("desk: rmdir d | lap: write d/x 1", "d/, d/x=1"), ("box: rm d/x", "d/")],
    ),
    (
        "an edit in a removed directory keeps its way up",
        "mkdir d; mkdir d/e; write d/e/x 1; write d/y 1",
        &[("desk: rm -r d | lap: edit d/e/x 2", "d/, d/e/, d/e/x=2")],
    ),
    (
        "two edits in a removed directory",
        "mkdir d; write d/a 1",
        &[(
            "desk: rm -r d | lap: edit d/a 2 | box: edit d/a 3",
            "d/, d/a=3, d/a (conflict lap 12.01)=2",
        )],
    ),
    (
        "a move into a directory that is being removed",
        "mkdir d; write a 1",
        &[("desk: rmdir d | lap: mv a d/a", "d/, d/a=1")],
    ),
    (
        "a move of a directory into one that is being removed",
        "mkdir d; mkdir e; write e/x 1",
        &[("desk: rmdir d | lap: mv e d/e", "d/, d/e/, d/e/x=1")],
    ),
    (
        "a move out of a directory that is being removed",
        "mkdir d; write d/a 1; write d/b 2",
        &[("desk: rm -r d | lap: mv d/a a", "a=1")],
    ),
    (
        "a hard link out of a directory that is being removed",
        "mkdir d; write d/a 1",
        &[("desk: rm -r d | lap: ln d/a b", "b=1")],
    ),
    (
        "a hard link into a directory that is being removed",
        "mkdir d; write a 1",
        &[("desk: rmdir d | lap: ln a d/a", "a=1 x2, d/, d/a=1 x2")],
    ),
    (
        "a directory moves out of one that is being removed, without what was removed in it",
        "mkdir d; mkdir d/e; write d/e/x 1",
        &[("desk: rm -r d | lap: mv d/e e", "e/")],
    ),
    (
        "a removed directory moves elsewhere",
        "mkdir d; write d/x 1",
        &[("desk: rm -r d | lap: mv d e", "e/"), ("lap: rmdir e", "")],
    ),
    (
        "a directory of the same name is made while the old one is kept",
        "mkdir d",
        &[
            ("desk: rmdir d; mkdir d; write d/y 2 | lap: write d/x 1", "d/, d/x=1, d/y=2"),
            ("box: mv d e", "e/, e/x=1, e/y=2"),
            ("lap: rm -r e", ""),
        ],
    ),
    (
        "a file of the same name is made while the directory is kept",
        "mkdir d",
        &[("desk: rmdir d; write d 2 | lap: write d/x 1", "d/, d/x=1, d (desk)=2")],
    ),
    (
        "a removed directory is moved into another removed one",
        "mkdir d; mkdir e; write e/x 1",
        &[("desk: rmdir d | lap: rm -r e | box: mv e d/e", "d/, d/e/")],
    ),
];

const EQUAL_NAMES: &[Row] = &[
    (
        "files of one name are both kept, the earlier under it",
        "",
        &[("desk: write a.txt 1 | lap: write a.txt 2", "a.txt=1, a (lap).txt=2")],
    ),
    (
        "files of one name and equal bytes are one",
        "",
        &[("desk: write a 1 | lap: write a 1", "a=1"), ("lap: edit a 2", "a=2"), ("box: rm a", "")],
    ),
    (
        "edits of what was equal are in conflict once they differ",
        "",
        &[
            ("desk: write a 1 | lap: write a 1", "a=1"),
            ("desk: edit a 2 | lap: edit a 3", "a=3, a (conflict desk 13.00)=2"),
        ],
    ),
    (
        "empty files may be about to be filled, and stay two",
        "",
        &[("desk: write a 0 | lap: write a 0", "a=0, a (lap)=0")],
    ),
    (
        "three files of one name",
        "",
        &[("lap: write a 1 | box: write a 2 | desk: write a 3", "a=1, a (box)=2, a (desk)=3")],
    ),
    (
        "files with two names each meet at both",
        "",
        &[(
            "desk: write a 1; ln a b | lap: write a 2; ln a b",
            "a=1 x2, b=1 x2, a (lap)=2 x2, b (lap)=2 x2",
        )],
    ),
    (
        "equal files with two names each are one",
        "",
        &[("desk: write a 1; ln a b | lap: write a 1; ln a b", "a=1 x2, b=1 x2")],
    ),
    (
        "an equal file keeps a second name that the other has not",
        "",
        &[("desk: write a 1 | lap: write a 1; ln a b", "a=1, b=1"), ("desk: edit a 2", "a=2, b=1")],
    ),
    (
        "two names of one file meet at one",
        "write a 1; ln a b",
        &[("desk: mv a c | lap: mv b c", "c=1"), ("box: edit c 2", "c=2"), ("desk: rm c", "")],
    ),
    (
        "files that are moved to one name",
        "write a 1; write b 2",
        &[("desk: mv a c | lap: mv b c", "c=1, c (lap)=2")],
    ),
    (
        "directories of one name are one",
        "",
        &[
            (
                "desk: mkdir d; mkdir d/e; write d/e/x 1 | lap: mkdir d; mkdir d/e; write d/e/y 2",
                "d/, d/e/, d/e/x=1, d/e/y=2",
            ),
            ("box: mv d f", "f/, f/e/, f/e/x=1, f/e/y=2"),
            ("desk: mv f/e e", "e/, e/x=1, e/y=2, f/"),
        ],
    ),
    (
        "three directories of one name, with files of one name in them",
        "",
        &[(
            "desk: mkdir d; write d/x 1 | lap: mkdir d; write d/x 2 | box: mkdir d; write d/x 3",
            "d/, d/x=1, d/x (lap)=2, d/x (box)=3",
        )],
    ),
    (
        "directories that are moved to one name",
        "mkdir d; mkdir e; write d/x 1; write e/y 2",
        &[("desk: mv d f | lap: mv e f", "f/, f/x=1, f/y=2"), ("box: rm -r f", "")],
    ),
    (
        "one of two united directories is moved away by who doesn't know of the other",
        "",
        &[(
            "desk: mkdir d; write d/x 1; mv d e | lap: mkdir d; write d/y 2",
            "d/, d/y=2, e/, e/x=1",
        )],
    ),
    (
        "a directory keeps its name before a file",
        "",
        &[("desk: write d 1 | lap: mkdir d", "d/, d (desk)=1")],
    ),
    (
        "a directory keeps its name before a file with two names",
        "",
        &[("desk: write d 1; ln d e | lap: mkdir d", "d/, d (desk)=1 x2, e=1 x2")],
    ),
    (
        "a directory, a file and a symbolic link",
        "",
        &[("desk: write d 1 | lap: symlink d x | box: mkdir d", "d/, d (desk)=1, d (lap)->x")],
    ),
    (
        "equal symbolic links are one, others are not",
        "",
        &[("desk: symlink s x | lap: symlink s x | box: symlink s y", "s->x, s (box)->y")],
    ),
    (
        "a name that looks labelled is never taken from who has it",
        "write 'a (lap)' 7",
        &[("desk: write a 1 | lap: write a 2", "a=1, a (lap)=7, a (lap) 2=2")],
    ),
    (
        "a labelled name that is made by hand meanwhile gets on with the other",
        "",
        &[(
            "desk: write a 1 | lap: write a 2 | box: write 'a (lap)' 3",
            "a=1, a (lap)=3, a (lap) 2=2",
        )],
    ),
    (
        "a labelled file can be moved, removed and brought back",
        "",
        &[
            ("desk: write a 1 | lap: write a 2", "a=1, a (lap)=2"),
            ("box: mv 'a (lap)' b", "a=1, b=2"),
            ("lap: mv b a", "a=2"),
        ],
    ),
    (
        "the labelled file keeps its name when the other goes",
        "",
        &[("desk: write a 1 | lap: write a 2", "a=1, a (lap)=2"), ("lap: rm a", "a (lap)=2")],
    ),
];

const MOVES: &[Row] = &[
    ("of two moves the later counts", "write a 1", &[("desk: mv a b | lap: mv a c", "c=1")]),
    ("a move and an edit are both kept", "write a 1", &[("desk: mv a b | lap: edit a 2", "b=2")]),
    (
        "a directory moves while something is made in it",
        "mkdir d; write d/a 1",
        &[(
            "desk: mv d e | lap: edit d/a 2; write d/b 3; ln d/a d/c",
            "e/, e/a=2 x2, e/b=3, e/c=2 x2",
        )],
    ),
    (
        "two names change places on both sides",
        "write a 1; write b 2",
        &[("desk: swap a b | lap: swap a b", "a=2, b=1")],
    ),
    (
        "two names change places, and one is edited and one moved",
        "write a 1; write b 2",
        &[("desk: swap a b | lap: edit a 3; mv b c", "b=3, c=2")],
    ),
    (
        "a file and a directory change places while something is made in it",
        "write a 1; mkdir d",
        &[("desk: swap a d | lap: write d/x 2", "a/, a/x=2, d=1")],
    ),
    (
        "in a cycle the latest move is shown in the root",
        "mkdir d; mkdir e; write d/x 1",
        &[("desk: mv d e/d | lap: mv e d/e", "e/, e/d/, e/d/x=1")],
    ),
    (
        "the cycle is cut at the later move, whoever made it",
        "mkdir d; mkdir e; write d/x 1",
        &[("lap: mv e d/e | desk: mv d e/d", "d/, d/x=1, d/e/")],
    ),
    (
        "a cycle of three",
        "mkdir d; mkdir e; mkdir f",
        &[("desk: mv d e/d | lap: mv e f/e | box: mv f d/f", "f/, f/e/, f/e/d/")],
    ),
    (
        "a cycle of four, with hard links in it",
        "mkdir d; mkdir e; mkdir f; mkdir g; write d/x 1; ln d/x g/y",
        &[(
            "desk: mv d e/d | lap: mv e f/e | box: mv f g/f | pad: mv g d/g",
            "g/, g/y=1 x2, g/f/, g/f/e/, g/f/e/d/, g/f/e/d/x=1 x2",
        )],
    ),
    (
        "a cycle below another directory comes up to the root",
        "mkdir c; mkdir c/d; mkdir c/e",
        &[("desk: mv c/d c/e/d | lap: mv c/e c/d/e", "c/, e/, e/d/")],
    ),
    (
        "what a cycle shows in the root meets what has its name",
        "mkdir c; mkdir c/d; mkdir c/e",
        &[(
            "desk: mv c/d c/e/d | lap: mv c/e c/d/e | box: mkdir e; write e/x 1",
            "c/, e/, e/d/, e/x=1",
        )],
    ),
    (
        "two cycles at once",
        "mkdir d; mkdir e; mkdir f; mkdir g",
        &[("desk: mv d e/d; mv f g/f | lap: mv e d/e; mv g f/g", "e/, e/d/, g/, g/f/")],
    ),
    (
        "a cycle ends with an ordinary move",
        "mkdir d; mkdir e; write d/x 1",
        &[
            ("desk: mv d e/d | lap: mv e d/e", "e/, e/d/, e/d/x=1"),
            ("box: mv e/d d", "d/, d/x=1, e/"),
        ],
    ),
    (
        "a cycle is removed",
        "mkdir d; mkdir e; write d/x 1",
        &[("desk: mv d e/d | lap: mv e d/e", "e/, e/d/, e/d/x=1"), ("box: rm -r e", "")],
    ),
    (
        "a cycle meets the removal of one of its directories",
        "mkdir d; mkdir e",
        &[("desk: mv d e/d | lap: mv e d/e | box: rmdir d", "e/, e/d/")],
    ),
    (
        "a cycle meets an ordinary move elsewhere",
        "mkdir d; mkdir e; mkdir f",
        &[("desk: mv d e/d | lap: mv e d/e | box: mv d f/d", "f/, f/d/, f/d/e/")],
    ),
];

#[test]
fn two_versions_of_a_file() {
    plays(TWO_VERSIONS);
}

#[test]
fn many_versions_of_a_file() {
    plays(MANY_VERSIONS);
}

#[test]
fn removals_of_files() {
    plays(REMOVALS);
}

#[test]
fn removals_of_directories() {
    plays(REMOVED_DIRECTORIES);
}

#[test]
fn equal_names() {
    plays(EQUAL_NAMES);
}

#[test]
fn moves_and_cycles() {
    plays(MOVES);
}
