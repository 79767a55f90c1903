//! What comes of a file: numbers with a shape.

/// Numbers one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    U8(Vec<u8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    F32(Vec<f32>),
}

/// Row after row, the last dimension fastest. A clone copies the numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub numbers: Numbers,
    /// Of an image height, width, channels; of sound frames, channels, or channels, frames.
    pub shape: Vec<usize>,
    /// Frames a second, of sound.
    pub sample_rate: Option<u32>,
}

impl Numbers {
    pub fn len(&self) -> usize {
        match self {
            Numbers::U8(all) => all.len(),
            Numbers::U16(all) => all.len(),
            Numbers::I16(all) => all.len(),
            Numbers::F32(all) => all.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `numbers` in `groups` rows of `length`, turned: row and column change places.
pub(super) fn transposed<T: Copy>(numbers: &[T], groups: usize, length: usize) -> Vec<T> {
    let mut turned = Vec::with_capacity(numbers.len());
    for at in 0..length {
        turned.extend((0..groups).map(|group| numbers[group * length + at]));
    }
    turned
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_become_columns() {
        assert_eq!(super::transposed(&[1, 2, 3, 4, 5, 6], 3, 2), [1, 3, 5, 2, 4, 6]);
        assert!(super::transposed::<u8>(&[], 0, 2).is_empty());
    }
}
