//! Records of a pax header: `LENGTH KEY=VALUE\n`, one after another.

/// What of them concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub target: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub mtime: Option<i64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// The file is stored with its holes left out.
    pub sparse: bool,
}

impl Pax {
    /// Takes records over; later ones win. An empty value takes an earlier one back.
    ///
    /// Errors: why they are no records.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().take(20).position(|&b| b == b' ').ok_or("a pax record has no length")?;
            let length = whole(&bytes[..space]).ok_or("a pax record's length is no number")?;
            let record = usize::try_from(length)
                .ok()
                .filter(|&length| length > space + 1)
                .and_then(|length| bytes.get(..length))
                .ok_or("a pax record is longer than its header")?;
            let body =
                record[space + 1..].strip_suffix(b"\n").ok_or("a pax record does not end with a new line")?;
            let equals = body.iter().position(|&b| b == b'=').ok_or("a pax record has no `=`")?;
            self.set(&body[..equals], &body[equals + 1..])?;
            bytes = &bytes[record.len()..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            [] => Ok(None),
            _ => whole(value).map(Some).ok_or("a pax record's value is no number"),
        };
        let id = |n: Option<u64>| match n.map(u32::try_from) {
            None => Ok(None),
            Some(Ok(n)) => Ok(Some(n)),
            Some(Err(_)) => Err("a pax record's user or group is larger than 32 bits"),
        };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.target = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = id(number()?)?,
            b"gid" => self.gid = id(number()?)?,
            b"mtime" => self.mtime = seconds(value)?,
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {}
        }
        Ok(())
    }

    /// These where they say something, else those of `general`.
    pub fn or(self, general: &Pax) -> Pax {
        Pax {
            path: self.path.or_else(|| general.path.clone()),
            target: self.target.or_else(|| general.target.clone()),
            size: self.size.or(general.size),
            mtime: self.mtime.or(general.mtime),
            uid: self.uid.or(general.uid),
            gid: self.gid.or(general.gid),
            sparse: self.sparse || general.sparse,
        }
    }
}

fn whole(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds of `-12.25`, rounded down.
fn seconds(value: &[u8]) -> Result<Option<i64>, &'static str> {
    let bad = "a pax record's time is no number";
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    if value.is_empty() {
        return Ok(None);
    }
    let mut parts = digits.splitn(2, |&b| b == b'.');
    let seconds = parts.next().and_then(whole).and_then(|s| i64::try_from(s).ok()).ok_or(bad)?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let past = fraction.iter().any(|&b| b != b'0');
    Ok(Some(if negative { -seconds - i64::from(past) } else { seconds }))
}
