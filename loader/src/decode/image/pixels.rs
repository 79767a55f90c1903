//! Pixels, row after row, and what is done to them.

/// `height` rows of `width` pixels of `channels` numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pixels<T> {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub numbers: Vec<T>,
}

impl<T: Copy> Pixels<T> {
    pub fn shape(&self) -> Vec<usize> {
        vec![self.height, self.width, self.channels]
    }

    /// By Exif's number of it, 1 to 8 (CIPA DC-008, tag 274): what to do so that row 0 is the top and column 0 the left.
    pub fn oriented(self, orientation: u8) -> Pixels<T> {
        let (turned, down, back) = match orientation {
            2 => (false, false, true),
            3 => (false, true, true),
            4 => (false, true, false),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => return self,
        };
        let Pixels { width, height, channels, numbers } = self;
        let (new_width, new_height) = if turned { (height, width) } else { (width, height) };
        let mut out = Vec::with_capacity(numbers.len());
        for row in 0..new_height {
            for column in 0..new_width {
                // Of the stored image: `down` counts its rows from below, `back` its columns from the right.
                let (y, x) = if turned { (column, row) } else { (row, column) };
                let y = if down { height - 1 - y } else { y };
                let x = if back { width - 1 - x } else { x };
                let at = (y * width + x) * channels;
                out.extend_from_slice(&numbers[at..at + channels]);
            }
        }
        Pixels { width: new_width, height: new_height, channels, numbers: out }
    }
}

/// ITU-R 601's weights, in 65536ths.
fn gray(red: u8, green: u8, blue: u8) -> u8 {
    let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((sum + 0x8000) >> 16) as u8
}

impl Pixels<u8> {
    /// With 1, 3 or 4 channels, of 1 to 4: see the parent's table.
    pub fn with_channels(self, channels: usize) -> Pixels<u8> {
        let of = self.channels;
        if of == channels {
            return self;
        }
        let mut numbers = Vec::with_capacity(self.width * self.height * channels);
        for pixel in self.numbers.chunks_exact(of) {
            let (color, alpha) = match *pixel {
                [gray] => ([gray; 3], 255),
                [gray, alpha] => ([gray; 3], alpha),
                [red, green, blue] => ([red, green, blue], 255),
                [red, green, blue, alpha, ..] => ([red, green, blue], alpha),
                [] => ([0; 3], 255),
            };
            match channels {
                1 if of <= 2 => numbers.push(color[0]),
                1 => numbers.push(gray(color[0], color[1], color[2])),
                3 => numbers.extend_from_slice(&color),
                _ => numbers.extend_from_slice(&[color[0], color[1], color[2], alpha]),
            }
        }
        Pixels { channels, numbers, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 wide, 2 high, a pixel says where it is.
    fn made() -> Pixels<u8> {
        Pixels { width: 3, height: 2, channels: 1, numbers: vec![11, 12, 13, 21, 22, 23] }
    }

    #[test]
    fn each_orientation_puts_the_top_left_where_exif_says() {
        let expected: [(u8, usize, &[u8]); 9] = [
            (0, 3, &[11, 12, 13, 21, 22, 23]),
            (1, 3, &[11, 12, 13, 21, 22, 23]),
            (2, 3, &[13, 12, 11, 23, 22, 21]),
            (3, 3, &[23, 22, 21, 13, 12, 11]),
            (4, 3, &[21, 22, 23, 11, 12, 13]),
            (5, 2, &[11, 21, 12, 22, 13, 23]),
            (6, 2, &[21, 11, 22, 12, 23, 13]),
            (7, 2, &[23, 13, 22, 12, 21, 11]),
            (8, 2, &[13, 23, 12, 22, 11, 21]),
        ];
        for (orientation, width, numbers) in expected {
            let turned = made().oriented(orientation);
            assert_eq!((turned.width, turned.height * turned.width), (width, 6), "{orientation}");
            assert_eq!(turned.numbers, numbers, "{orientation}");
        }
        let colors = Pixels { width: 1, height: 2, channels: 3, numbers: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(colors.oriented(3).numbers, [4, 5, 6, 1, 2, 3]);
    }

    #[test]
    fn channels_are_added_and_left_out() {
        let of = |channels: usize, numbers: &[u8], to: usize| {
            let width = numbers.len() / channels;
            Pixels { width, height: 1, channels, numbers: numbers.to_vec() }.with_channels(to).numbers
        };
        assert_eq!(of(1, &[7, 8], 3), [7, 7, 7, 8, 8, 8]);
        assert_eq!(of(1, &[7], 4), [7, 7, 7, 255]);
        assert_eq!(of(2, &[7, 9], 4), [7, 7, 7, 9]);
        assert_eq!(of(2, &[7, 9], 1), [7]);
        assert_eq!(of(3, &[1, 2, 3], 4), [1, 2, 3, 255]);
        assert_eq!(of(4, &[1, 2, 3, 4, 5, 6, 7, 8], 3), [1, 2, 3, 5, 6, 7]);
        assert_eq!(of(3, &[255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255], 1), [255, 76, 150, 29]);
    }
}
