//! What the stock server's catalogs say of the relations: names, and which mask their pages need.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;

use postgres_formats::{Oid, PageImage, RelFileLocator};
use walredo_pool::MaskKind;

use super::Watcher;
use super::stock::StockServer;
use crate::error::{Error, IoContext, Result};

/// PostgreSQL's numbers of the resource managers (`access/rmgrlist.h`) by access method. Sequences
/// have none, there their kind of relation stands.
const RESOURCE_MANAGERS: [(&str, u8); 8] = [
    ("heap", 10),
    ("btree", 11),
    ("hash", 12),
    ("gin", 13),
    ("gist", 14),
    ("S", 15),
    ("spgist", 16),
    ("brin", 17),
];

/// Databases that hardly any cluster lacks, in which the others are asked for.
const FIRST_DATABASES: [&str; 2] = ["template1", "postgres"];

const DATABASES: &str = "select encode(convert_to(datname, getdatabaseencoding()), 'hex') \
     from pg_database";

const RELATIONS: &str = "select case when c.reltablespace = 0 then d.dattablespace \
     else c.reltablespace end, case when c.relisshared then 0 else d.oid end, \
     pg_relation_filenode(c.oid), coalesce(a.amname, c.relkind::text), \
     case when c.relisshared then '' else d.datname || '.' end || c.oid::regclass \
     from pg_class c cross join pg_database d left join pg_am a on a.oid = c.relam \
     where d.datname = current_database() and pg_relation_filenode(c.oid) is not null";

/// A relation as its catalog has it.
struct Entry {
    name: String,
    manager: Option<u8>,
}

/// All relations that the catalogs know.
#[derive(Default)]
pub(super) struct Catalog {
    relations: BTreeMap<RelFileLocator, Entry>,
}

impl StockServer {
    /// Asks all databases. The server must be stopped.
    pub fn catalog(&self, watcher: &Watcher<'_>) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        for database in self.databases()? {
            watcher.check()?;
            for line in self.select(&database, RELATIONS)?.lines() {
                catalog.add(line);
            }
        }
        Ok(catalog)
    }

    fn databases(&self) -> Result<Vec<OsString>> {
        let mut asked = Err(Error::InvalidArgument(String::new()));
        for database in FIRST_DATABASES {
            asked = self.select(OsStr::new(database), DATABASES);
            if asked.is_ok() {
                break;
            }
        }
        Ok(asked?.lines().filter_map(from_hex).map(OsString::from_vec).collect())
    }

    fn select(&self, database: &OsStr, query: &str) -> Result<String> {
        let path = self.beside("answer");
        let quoted = path.to_string_lossy().replace('\'', "''");
        self.run_sql(database, &format!("copy ({query}) to '{quoted}'"))?;
        let bytes = fs::read(&path).io("read", &path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = |at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(digits).collect()
}

impl Catalog {
    fn add(&mut self, line: &str) {
        let mut fields = line.split('\t');
        let mut oid = || fields.next().and_then(|field| field.parse().ok()).map(Oid);
        let (Some(spc), Some(db), Some(rel)) = (oid(), oid(), oid()) else { return };
        let (Some(method), Some(name)) = (fields.next(), fields.next()) else { return };
        let known = RESOURCE_MANAGERS.iter().find(|(known, _)| *known == method);
        let entry = Entry { name: name.to_owned(), manager: known.map(|(_, manager)| *manager) };
        self.relations.insert(RelFileLocator { spc, db, rel }, entry);
    }

    /// The relation's name with that of its database.
    pub fn name(&self, relation: RelFileLocator) -> Option<&str> {
        self.relations.get(&relation).map(|entry| entry.name.as_str())
    }

    /// The mask for pages of the relation's main fork. One that is not in the catalogs was made by a
    /// transaction that had not committed; then `page`, one of its own, tells.
    pub fn mask(&self, relation: RelFileLocator, page: &PageImage) -> MaskKind {
        let manager = match self.relations.get(&relation) {
            Some(entry) => entry.manager,
            None => manager_by_page(page),
        };
        manager.map_or(MaskKind::PageHeader, MaskKind::ResourceManager)
    }
}

/// What kind of page it is: index pages have a special area, and most of them a mark at its end, as
/// PostgreSQL's own tools use it (`access/{hash,gist_private,spgist_private,brin_page}.h`).
fn manager_by_page(page: &PageImage) -> Option<u8> {
    let half = |at: usize| Some(u16::from_le_bytes([*page.get(at)?, *page.get(at + 1)?]));
    let special = usize::from(half(16)?);
    let mark = half(page.len() - 2)?;
    match (page.len().checked_sub(special)?, mark) {
        (0, _) => Some(10),
        (16, 0xFF80) => Some(12),
        (16, 0xFF81) => Some(14),
        (8, 0xFF82) => Some(16),
        (8, 0xF091..=0xF093) => Some(17),
        (8, _) if half(special)? == 0x1717 => Some(15),
        (8, _) => Some(13),
        (16, _) => Some(11),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_catalog() {
        let mut catalog = Catalog::default();
        catalog.add("1663\t5\t16384\tgin\tpostgres.docs_body_idx");
        catalog.add("nonsense");
        let index = RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(16384) };
        assert_eq!(catalog.name(index), Some("postgres.docs_body_idx"));
        let page = PageImage::zeroed();
        assert_eq!(catalog.mask(index, &page), MaskKind::ResourceManager(13));
        assert_eq!(from_hex("7a61"), Some(b"za".to_vec()));
        assert_eq!(from_hex("7"), None);
    }

    #[test]
    fn unknown_relations_are_told_by_their_pages() {
        let unknown = RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(1) };
        let page = |special: u16, mark: u16| {
            let mut page = PageImage::zeroed();
            page[16..18].copy_from_slice(&special.to_le_bytes());
            page[8190..].copy_from_slice(&mark.to_le_bytes());
            page
        };
        for (special, mark, manager) in [
            (8192, 0, 10),
            (8176, 0, 11),
            (8176, 0xFF80, 12),
            (8176, 0xFF81, 14),
            (8184, 0xFF82, 16),
        ] {
            let mask = Catalog::default().mask(unknown, &page(special, mark));
            assert_eq!(mask, MaskKind::ResourceManager(manager));
        }
    }
}
