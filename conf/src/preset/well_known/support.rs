//! `support`: whom to turn to (Matrix client-server API, `GET /.well-known/matrix/support`).

use serde_json::{Map, Value as Json};

use super::parse_web_url;
use crate::Severity;
use crate::preset::parse_server_name;
use crate::reader::{Item, Section, nearest};

/// Reads the document; members beyond those of the specification are passed on.
pub(super) fn read(item: &Item<'_>) -> Option<Map<String, Json>> {
    let mut section = item.section()?;
    let page = section.take("support_page").map_or(Some(()), |item| item.parse(parse_web_url));
    let contacts = section.take("contacts").map(|item| {
        let contacts: Vec<Option<Json>> = item.filled_list()?.iter().map(read_contact).collect();
        contacts.into_iter().collect::<Option<Vec<Json>>>()
    });
    let mut document = members(section, &["contacts", "support_page"])?;
    if document.is_empty() {
        item.error("needs contacts or a support_page");
        return None;
    }
    if let Some(contacts) = contacts {
        document.insert("contacts".to_owned(), Json::Array(contacts?));
    }
    page.map(|()| document)
}

fn read_contact(item: &Item<'_>) -> Option<Json> {
    let mut section = item.section()?;
    let role = section.require("role", "write m.role.admin or m.role.security");
    let role = role.and_then(|item| item.parse(parse_role));
    let (user, address) = (section.take("matrix_id"), section.take("email_address"));
    if user.is_none() && address.is_none() && !section.misspells(&["matrix_id", "email_address"]) {
        item.error("needs a matrix_id or an email_address");
        return None;
    }
    let user = user.map_or(Some(()), |item| item.parse(parse_user));
    let address = address.map_or(Some(()), |item| item.parse(parse_address));
    let contact = members(section, &["role", "matrix_id", "email_address"])?;
    role.and(user).and(address).map(|()| Json::Object(contact))
}

/// Every member that has a value. One like those of the specification is misspelt, others are somebody's own.
fn members(section: Section<'_>, known: &[&'static str]) -> Option<Map<String, Json>> {
    for (name, item) in section.entries().filter(|(name, _)| !known.contains(name)) {
        if let Some(near) = nearest(name, known.iter().copied()) {
            section.at_key(&item, Severity::Error, format!("unknown key, did you mean \"{near}\"?"));
        }
    }
    let members = section.json();
    section.finish_open();
    let mut members = members?;
    members.retain(|_, value| !value.is_null());
    Some(members)
}

fn parse_role(text: &str) -> Result<(), String> {
    if text.contains('.') && !text.contains(char::is_whitespace) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a role, write m.role.admin, m.role.security or one with a namespace of your own"
    ))
}

/// `@localpart:server`
fn parse_user(text: &str) -> Result<(), String> {
    let parts = text.strip_prefix('@').and_then(|rest| rest.split_once(':'));
    match parts {
        Some((localpart, server)) if !localpart.is_empty() && parse_server_name(server).is_ok() => Ok(()),
        Some(_) | None => Err(format!("`{text}` is not a Matrix id, write @name:example.com")),
    }
}

fn parse_address(text: &str) -> Result<(), String> {
    match text.split_once('@') {
        Some((name, host))
            if !name.is_empty()
                && !host.is_empty()
                && !text.starts_with("mailto:")
                && !text.contains(char::is_whitespace)
                && !host.contains('@') =>
        {
            Ok(())
        }
        Some(_) | None => Err(format!("`{text}` is not an e-mail address, write name@example.com")),
    }
}
