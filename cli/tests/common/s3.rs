//! A bucket in this process, as much of S3 as the program uses: objects and their ranges, listings, deletes, uploads in parts. It
//! outlives the programs that use it, and can hold requests and tell of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a test waits for a request that does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    /// Done, and not answered yet.
    After,
}

type Hook = Box<dyn FnMut(Moment, &str, &str) + Send>;

/// Of an upload, by number.
type Parts = BTreeMap<u32, Vec<u8>>;

#[derive(Default)]
struct State {
    /// By bucket and key.
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Those that were put anew, said to be a minute younger than all others.
    anew: Mutex<HashSet<String>>,
    /// Key, and parts by number, of those that are not finished.
    uploads: Mutex<HashMap<String, (String, Parts)>>,
    hook: Mutex<Option<Hook>>,
    gates: Mutex<Vec<(String, Arc<Gate>)>>,
}

pub struct S3 {
    pub url: String,
    state: Arc<State>,
}

/// Holds requests until it is opened.
#[derive(Default)]
pub struct Gate {
    /// How many wait, and whether it is open.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Returns when so many requests are held.
    pub fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, PATIENCE, |state| state.0 < count).unwrap();
        assert!(state.0 >= count, "{} of {count} requests came", state.0);
    }

    pub fn held(&self) -> usize {
        self.state.lock().unwrap().0
    }

    pub fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.1).unwrap());
    }
}

impl S3 {
    pub fn start() -> S3 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let served = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), state) = (stream, served.clone()) else { return };
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        S3 { url, state }
    }

    pub fn env(&self) -> Vec<(&str, &str)> {
        vec![
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ]
    }

    /// `name`: bucket and key.
    pub fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.state.objects.lock().unwrap().insert(name.to_owned(), bytes.into());
        self.state.anew.lock().unwrap().remove(name);
    }

    /// Puts it anew when it has been read for the first time.
    pub fn put_anew_while_read(&self, name: &str, bytes: Vec<u8>) {
        let (state, name, mut bytes) = (Arc::downgrade(&self.state), name.to_owned(), Some(bytes));
        self.hook(move |moment, method, asked| {
            if (moment, method, asked) == (Moment::After, "GET", &*name)
                && let (Some(state), Some(bytes)) = (state.upgrade(), bytes.take())
            {
                state.objects.lock().unwrap().insert(name.clone(), bytes);
                state.anew.lock().unwrap().insert(name.clone());
            }
        });
    }

    pub fn remove(&self, name: &str) {
        self.state.objects.lock().unwrap().remove(name);
    }

    /// What is below a prefix, without it.
    pub fn below(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let objects = self.state.objects.lock().unwrap();
        let below = objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        below.map(|(name, bytes)| (name[prefix.len()..].to_owned(), bytes.clone())).collect()
    }

    /// Calls this with method and name before and after each request is done; one at a time.
    pub fn hook(&self, hook: impl FnMut(Moment, &str, &str) + Send + 'static) {
        *self.state.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub fn unhook(&self) {
        *self.state.hook.lock().unwrap() = None;
    }

    /// Holds requests for objects whose names end so.
    pub fn hold(&self, end: &str) -> Arc<Gate> {
        let gate = Arc::<Gate>::default();
        self.state.gates.lock().unwrap().push((end.to_owned(), gate.clone()));
        gate
    }
}

struct Request {
    method: String,
    /// Bucket and key.
    name: String,
    query: HashMap<String, String>,
    range: Option<(usize, usize)>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: String::new(), body: body.into() }
    }

    fn missing(code: &str) -> Answer {
        Answer::new(404, format!("<Error><Code>{code}</Code><Message>it is not here</Message></Error>"))
    }
}

/// Until the other end goes away.
fn serve(stream: TcpStream, state: &State) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let gate = {
            let gates = state.gates.lock().unwrap();
            gates.iter().find(|(end, _)| request.name.ends_with(end.as_str())).map(|(_, gate)| gate.clone())
        };
        if let Some(gate) = gate {
            gate.pass();
        }
        let hook = |moment| {
            if let Some(hook) = &mut *state.hook.lock().unwrap() {
                hook(moment, &request.method, &request.name);
            }
        };
        hook(Moment::Before);
        let answer = state.answer(&request);
        hook(Moment::After);
        let head = format!(
            "HTTP/1.1 {} Told\r\ncontent-length: {}\r\n{}\r\n",
            answer.status,
            answer.body.len(),
            answer.headers
        );
        let body = if request.method == "HEAD" { &[][..] } else { &answer.body };
        if out.write_all(head.as_bytes()).and_then(|()| out.write_all(body)).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut range) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|&n| n > 0)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse().unwrap(),
            ("range", value) => {
                let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
                range = Some((from.parse().unwrap(), to.parse().unwrap()));
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query =
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (plain(k), plain(v)));
    Some(Request { method, name: plain(path.trim_start_matches('/')), query: query.collect(), range, body })
}

/// Percent-decoded.
fn plain(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap()
}

impl State {
    fn answer(&self, request: &Request) -> Answer {
        let Request { method, name, query, body, .. } = request;
        let upload = query.get("uploadId");
        match (method.as_str(), upload) {
            ("GET", _) if query.contains_key("list-type") => self.list(request),
            ("GET" | "HEAD", _) => self.get(request),
            ("PUT", Some(id)) => match self.uploads.lock().unwrap().get_mut(id) {
                Some((_, parts)) => {
                    let number = query["partNumber"].parse().unwrap();
                    parts.insert(number, body.clone());
                    Answer { headers: format!("etag: \"{number}\"\r\n"), ..Answer::new(200, "") }
                }
                None => Answer::missing("NoSuchUpload"),
            },
            ("PUT", None) => {
                self.objects.lock().unwrap().insert(name.clone(), body.clone());
                Answer { headers: "etag: \"0\"\r\n".to_owned(), ..Answer::new(200, "") }
            }
            ("POST", _) if query.contains_key("uploads") => {
                let mut uploads = self.uploads.lock().unwrap();
                let id = format!("upload-{}-{name}", uploads.len()).replace('/', "-");
                uploads.insert(id.clone(), (name.clone(), BTreeMap::new()));
                let (bucket, key) = name.split_once('/').unwrap();
                Answer::new(
                    200,
                    format!(
                        "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>\
                         <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                    ),
                )
            }
            ("POST", Some(id)) => match self.uploads.lock().unwrap().remove(id) {
                Some((name, parts)) => {
                    let whole = parts.into_values().collect::<Vec<_>>().concat();
                    self.objects.lock().unwrap().insert(name, whole);
                    Answer::new(
                        200,
                        "<CompleteMultipartUploadResult><ETag>\"0\"</ETag></CompleteMultipartUploadResult>",
                    )
                }
                None => Answer::missing("NoSuchUpload"),
            },
            ("POST", None) if query.contains_key("delete") => {
                let text = String::from_utf8(body.clone()).unwrap();
                let mut deleted = String::new();
                for key in text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()) {
                    self.objects.lock().unwrap().remove(&format!("{}/{key}", name.trim_end_matches('/')));
                    deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
                }
                Answer::new(200, format!("<DeleteResult>{deleted}</DeleteResult>"))
            }
            ("DELETE", Some(id)) => {
                self.uploads.lock().unwrap().remove(id);
                Answer::new(204, "")
            }
            ("DELETE", None) => {
                self.objects.lock().unwrap().remove(name);
                Answer::new(204, "")
            }
            _ => Answer::new(501, "<Error><Code>NotImplemented</Code><Message>no</Message></Error>"),
        }
    }

    fn get(&self, request: &Request) -> Answer {
        let objects = self.objects.lock().unwrap();
        let Some(bytes) = objects.get(&request.name) else { return Answer::missing("NoSuchKey") };
        let minute = u8::from(self.anew.lock().unwrap().contains(&request.name));
        let about = format!("last-modified: Thu, 01 Jan 2026 00:0{minute}:00 GMT\r\netag: \"0\"\r\n");
        let (status, bytes, range) = match request.range {
            None => (200, &bytes[..], String::new()),
            Some((from, _)) if from >= bytes.len() => {
                return Answer::new(
                    416,
                    "<Error><Code>InvalidRange</Code><Message>past the end</Message></Error>",
                );
            }
            Some((from, to)) => {
                let end = bytes.len().min(to + 1);
                let range = format!("content-range: bytes {from}-{}/{}\r\n", end - 1, bytes.len());
                (206, &bytes[from..end], range)
            }
        };
        // Only the length counts of what answers a HEAD.
        Answer { status, headers: format!("{about}{range}"), body: bytes.to_vec() }
    }

    fn list(&self, request: &Request) -> Answer {
        let bucket = format!("{}/", request.name.trim_end_matches('/'));
        let of = |name: &str| request.query.get(name).cloned().unwrap_or_default();
        let (prefix, after) = (of("prefix"), of("continuation-token").max(of("start-after")));
        let max: usize = of("max-keys").parse().unwrap_or(1000);
        let objects = self.objects.lock().unwrap();
        let all = objects.iter().filter_map(|(name, bytes)| Some((name.strip_prefix(&bucket)?, bytes.len())));
        let mut page: Vec<(&str, usize)> =
            all.filter(|(key, _)| key.starts_with(&prefix) && *key > &*after).take(max + 1).collect();
        let more = page.len() > max;
        page.truncate(max);
        let mut text = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
        let anew = self.anew.lock().unwrap();
        for (key, size) in &page {
            let time =
                format!("2026-01-01T00:0{}:00.000Z", u8::from(anew.contains(&format!("{bucket}{key}"))));
            text += &format!(
                "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{time}</LastModified>\
                 <ETag>\"0\"</ETag></Contents>"
            );
        }
        if let (true, Some((last, _))) = (more, page.last()) {
            text += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
        }
        Answer::new(200, text + "</ListBucketResult>")
    }
}
