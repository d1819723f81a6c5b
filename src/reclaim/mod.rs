pub(crate) mod background;
pub(crate) mod fork;
pub(crate) mod tick;
