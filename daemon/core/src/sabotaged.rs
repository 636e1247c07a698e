//! The mark of the lines that tests can break. Without the feature `sabotage` it is `false`, and
//! nothing of it is built.

/// Whether a test broke the line on purpose.
#[cfg(feature = "sabotage")]
macro_rules! sabotaged {
    ($fault:ident) => {
        $crate::sabotage::is_active($crate::sabotage::Fault::$fault)
    };
}

/// Whether a test broke the line on purpose: never.
#[cfg(not(feature = "sabotage"))]
macro_rules! sabotaged {
    ($fault:ident) => {
        false
    };
}
