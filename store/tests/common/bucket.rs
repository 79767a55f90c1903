//! A bucket in memory that speaks as much S3 as granary uses, and refuses what granary must not send because RGW does not
//! take it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use super::http::{Reply, Request, Server};

pub const NAME: &str = "a-bucket";

#[derive(Debug, Default)]
pub struct Bucket {
    pub objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Objects that come in parts, by their ids: parts by number.
    pub uploads: Mutex<BTreeMap<String, BTreeMap<u32, Vec<u8>>>>,
    /// Answers to the next requests that finish one: a status and an error's code.
    pub finish_faults: Mutex<Vec<(u16, &'static str)>>,
    /// Requests so far: method, and `?delete` or the like.
    pub requests: Mutex<Vec<String>>,
}

impl Bucket {
    pub async fn serve() -> (Arc<Bucket>, Server) {
        let bucket = Arc::new(Bucket::default());
        let server = Server::start({
            let bucket = bucket.clone();
            move |request| bucket.answer(request)
        })
        .await;
        (bucket, server)
    }

    pub fn answer(&self, request: Request) -> Reply {
        let kind = ["delete", "uploads", "uploadId"].iter().find(|name| request.query.contains_key(**name));
        let kind = kind.map_or(String::new(), |name| format!("?{name}"));
        self.requests.lock().unwrap().push(format!("{}{kind}", request.method));
        if let Some(why) = unusable(&request) {
            return Reply::error(400, why);
        }
        let path = request.path.strip_prefix('/').unwrap();
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket != NAME {
            return Reply::error(404, "NoSuchBucket");
        }
        if !kind.is_empty() && kind != "?delete" {
            return self.parts(key, &request);
        }
        let mut objects = self.objects.lock().unwrap();
        match (request.method.as_str(), key) {
            ("GET", "") => list(&objects, &request),
            ("POST", "") if request.query.contains_key("delete") => delete(&mut objects, &request),
            ("PUT", key) => {
                objects.insert(key.to_owned(), request.body);
                Reply::new(200, "").header("etag", "\"e\"")
            }
            ("GET" | "HEAD", key) => match objects.get(key) {
                None => Reply::error(404, "NoSuchKey"),
                Some(object) => get(object, &request),
            },
            _ => Reply::error(405, "MethodNotAllowed"),
        }
    }
}

impl Bucket {
    /// An object in parts.
    fn parts(&self, key: &str, request: &Request) -> Reply {
        let mut uploads = self.uploads.lock().unwrap();
        let id = request.query.get("uploadId").map_or("", String::as_str);
        if request.method == "POST" && id.is_empty() {
            let id = format!("u{}", self.requests.lock().unwrap().len());
            uploads.insert(id.clone(), BTreeMap::new());
            let text = format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            return Reply::new(200, text);
        }
        let Some(parts) = uploads.get_mut(id) else { return Reply::error(404, "NoSuchUpload") };
        match request.method.as_str() {
            "PUT" => {
                let number = request.query["partNumber"].parse().unwrap();
                parts.insert(number, request.body.clone());
                Reply::new(200, "").header("etag", format!("\"part-{number}\""))
            }
            "POST" => {
                if let Some((status, code)) = self.finish_faults.lock().unwrap().pop() {
                    return Reply::error(status, code);
                }
                let text = String::from_utf8(request.body.clone()).unwrap();
                let named = text.matches("<PartNumber>").count();
                if named != parts.len() || !parts.keys().all(|n| text.contains(&format!("part-{n}"))) {
                    return Reply::error(400, "InvalidPart");
                }
                if parts.values().rev().skip(1).any(|part| part.len() < 5 << 20) {
                    return Reply::error(400, "EntityTooSmall");
                }
                let whole = parts.values().flatten().copied().collect();
                uploads.remove(id);
                self.objects.lock().unwrap().insert(key.to_owned(), whole);
                let text = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
                Reply::new(200, text)
            }
            "DELETE" => {
                uploads.remove(id);
                Reply::new(204, "")
            }
            _ => Reply::error(405, "MethodNotAllowed"),
        }
    }
}

/// What RGW does not take, or granary promised not to do.
fn unusable(request: &Request) -> Option<&'static str> {
    let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
    if !header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=test-id/") {
        return Some("NotSigned");
    }
    let digest = header("x-amz-content-sha256");
    if request.method == "PUT" && !(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Some("PayloadNotSigned");
    }
    if request.headers.contains_key("x-amz-trailer") || header("content-encoding").contains("aws-chunked") {
        return Some("TrailingChecksum");
    }
    if request.headers.contains_key("if-none-match") || request.headers.contains_key("if-match") {
        return Some("Conditional");
    }
    None
}

const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

fn get(object: &[u8], request: &Request) -> Reply {
    let total = object.len();
    let reply = |status, body: &[u8]| {
        Reply::new(status, body)
            .header("last-modified", DATE)
            .header("etag", "\"e\"")
            .header("accept-ranges", "bytes")
    };
    let Some(range) = request.headers.get("range") else { return reply(200, object) };
    let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
    if from >= total {
        return Reply::error(416, "InvalidRange");
    }
    let to = to.min(total - 1);
    reply(206, &object[from..=to]).header("content-range", format!("bytes {from}-{to}/{total}"))
}

fn list(objects: &BTreeMap<String, Vec<u8>>, request: &Request) -> Reply {
    let query = |name: &str| request.query.get(name).map_or("", String::as_str);
    let prefix = query("prefix");
    // The token is the last key of the page before.
    let after = if query("continuation-token").is_empty() {
        query("start-after")
    } else {
        query("continuation-token")
    };
    let max: usize = query("max-keys").parse().unwrap_or(1000).min(1000);
    let wanted: Vec<_> = objects
        .range::<str, _>((Bound::Excluded(after), Bound::Unbounded))
        .filter(|(key, _)| key.starts_with(prefix))
        .take(max + 1)
        .collect();
    let mut text = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
    for (key, object) in wanted.iter().take(max) {
        text += &format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag>\
             </Contents>",
            object.len()
        );
    }
    if wanted.len() > max {
        let last = wanted[max - 1].0;
        text +=
            &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>");
    }
    Reply::new(200, text + "</ListBucketResult>")
}

fn delete(objects: &mut BTreeMap<String, Vec<u8>>, request: &Request) -> Reply {
    let body = String::from_utf8(request.body.clone()).unwrap();
    let keys: Vec<_> = body.split("<Key>").skip(1).map(|rest| rest.split_once("</Key>").unwrap().0).collect();
    if keys.len() > 1000 {
        return Reply::error(400, "MalformedXML");
    }
    let mut text = String::from("<?xml version=\"1.0\"?><DeleteResult>");
    for key in keys {
        objects.remove(key);
        text += &format!("<Deleted><Key>{key}</Key></Deleted>");
    }
    Reply::new(200, text + "</DeleteResult>")
}
