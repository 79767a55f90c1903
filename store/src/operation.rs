//! What can be asked of a store, for wrappers that count, limit or break it.

use prometheus_client::encoding::EncodeLabelValue;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    Get,
    Put,
    Head,
    Delete,
    List,
    Begin,
    Part,
    Finish,
    Abort,
}

impl Operation {
    pub const ALL: [Operation; 9] = [
        Operation::Get,
        Operation::Put,
        Operation::Head,
        Operation::Delete,
        Operation::List,
        Operation::Begin,
        Operation::Part,
        Operation::Finish,
        Operation::Abort,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Head => "head",
            Operation::Delete => "delete",
            Operation::List => "list",
            Operation::Begin => "begin",
            Operation::Part => "part",
            Operation::Finish => "finish",
            Operation::Abort => "abort",
        }
    }
}

impl EncodeLabelValue for Operation {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}
