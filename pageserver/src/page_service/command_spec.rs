//! `CommandSpec`: the commands that there are, how they are written and what they reply.

/// What is known of a command without running it.
#[derive(Debug)]
pub struct CommandSpec {
    /// The verb and its arguments.
    pub usage: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The columns of its reply; none for a command that switches to COPY.
    pub columns: &'static [&'static str],
}

const BRANCH_COLUMNS: &[&str] = &[
    "name",
    "timeline",
    "ancestor_timeline",
    "ancestor_lsn",
    "start_lsn",
    "last_record_lsn",
    "created",
    "state",
    "stopped_lsn",
    "cause",
    "ancestor_branch",
    "protected",
    "expires",
    "kept_because",
    "detaching",
    "retention",
];
const TAG_COLUMNS: &[&str] = &["name", "branch", "timeline", "lsn", "created", "state", "cause"];
const COMPUTE_COLUMNS: &[&str] = &[
    "timeline",
    "connstr",
    "state",
    "received_lsn",
    "flushed_lsn",
    "message",
    "stopped_lsn",
    "cause",
];
const WRITER_COLUMNS: &[&str] = &[
    "timeline",
    "generation",
    "instance",
    "name",
    "held",
    "since",
    "since_lsn",
    "state",
    "last_record_lsn",
    "received_lsn",
    "flushed_lsn",
    "message",
];

const LEASE_COLUMNS: &[&str] =
    &["holder", "name", "timeline", "branch", "lsns", "since", "lasts_seconds", "created"];

/// Every command, in the order in which `help` lists them.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        usage: "status",
        purpose: "what the page server is and how it does",
        columns: &[
            "version",
            "pid",
            "repository",
            "uptime_seconds",
            "branches",
            "computes",
            "computes_streaming",
            "cache_bytes",
            "cache_hits",
            "cache_misses",
            "page_batches",
            "page_requests",
            "pages_requested",
            "redo_processes",
            "redo_pages",
            "redo_records",
            "pages_ahead",
            "records_ahead",
            "pages_in_backlog",
            "timelines_loaded",
            "segments_open",
            "layers_open",
            "wal_bytes_not_in_layers",
            "stretches_waiting",
            "index_bytes",
            "layers_written",
            "slowed",
            "working",
            "kept_timelines",
            "kept_bytes",
            "history_from_lsn",
            "history_removed_bytes",
            "history_unneeded_bytes",
            "history_held_bytes",
            "history_held_by",
            "problems",
        ],
    },
    CommandSpec { usage: "branch_list", purpose: "all branches", columns: BRANCH_COLUMNS },
    CommandSpec { usage: "branch_show NAME", purpose: "one branch", columns: BRANCH_COLUMNS },
    CommandSpec {
        usage: "timeline_show T",
        purpose: "positions and origin of a timeline",
        columns: &[
            "timeline",
            "ancestor_timeline",
            "ancestor_lsn",
            "start_lsn",
            "oldest_lsn",
            "last_record_lsn",
            "received_lsn",
            "flushed_lsn",
            "page_versions",
            "created",
            "state",
            "stopped_lsn",
            "cause",
        ],
    },
    CommandSpec {
        usage: "compute_list",
        purpose: "the servers whose WAL is followed",
        columns: COMPUTE_COLUMNS,
    },
    CommandSpec {
        usage: "branch_create NAME POINT [TIMESTAMP]",
        purpose: "create a branch at a point of another, which may expire some time",
        columns: BRANCH_COLUMNS,
    },
    CommandSpec {
        usage: "branch_delete NAME [reparent]",
        purpose: "delete a branch that nothing depends on, or leave its history to those that do",
        columns: BRANCH_COLUMNS,
    },
    CommandSpec {
        usage: "branch_protect NAME",
        purpose: "let nobody delete a branch, nor let it expire",
        columns: BRANCH_COLUMNS,
    },
    CommandSpec {
        usage: "branch_unprotect NAME",
        purpose: "let a branch be deleted again",
        columns: BRANCH_COLUMNS,
    },
    CommandSpec {
        usage: "branch_expire NAME [TIMESTAMP]",
        purpose: "delete a branch by itself at a time, or never if there is none",
        columns: BRANCH_COLUMNS,
    },
    CommandSpec {
        usage: "branch_detach NAME [wait]",
        purpose: "let a branch need no longer what it was made from, in the background or at once",
        columns: BRANCH_COLUMNS,
    },
    CommandSpec {
        usage: "branch_retain NAME RETENTION",
        purpose: "keep so much of a branch's history: 7d, 10GB, 7d,10GB, unlimited, or default",
        columns: BRANCH_COLUMNS,
    },
    CommandSpec {
        usage: "branch_rename OLD NEW",
        purpose: "give a branch another name",
        columns: BRANCH_COLUMNS,
    },
    CommandSpec { usage: "tag_list", purpose: "all tags", columns: TAG_COLUMNS },
    CommandSpec {
        usage: "tag_create NAME POINT",
        purpose: "give a point a name of its own",
        columns: TAG_COLUMNS,
    },
    CommandSpec { usage: "tag_delete NAME", purpose: "delete a tag", columns: TAG_COLUMNS },
    CommandSpec {
        usage: "pagestream T [GENERATION]",
        purpose: "switch the connection to binary page requests",
        columns: &[],
    },
    CommandSpec {
        usage: "basebackup T [LSN [stubs|whole]]",
        purpose: "a tar of the files a compute starts from; with stubs for commit log and the like, or none at all",
        columns: &[],
    },
    CommandSpec {
        usage: "callmemaybe T CONNSTR [INSTANCE GENERATION]",
        purpose: "follow the WAL of the server at CONNSTR",
        columns: COMPUTE_COLUMNS,
    },
    CommandSpec { usage: "forgetmemaybe T", purpose: "stop following", columns: COMPUTE_COLUMNS },
    CommandSpec {
        usage: "writer_show T",
        purpose: "who writes a timeline, and how far its WAL has been received",
        columns: WRITER_COLUMNS,
    },
    CommandSpec {
        usage: "writer_list",
        purpose: "who writes which timeline",
        columns: WRITER_COLUMNS,
    },
    CommandSpec {
        usage: "writer_claim T INSTANCE NAME GENERATION",
        purpose: "make a compute the writer of a timeline after that of GENERATION, 0 for none",
        columns: WRITER_COLUMNS,
    },
    CommandSpec {
        usage: "writer_release T INSTANCE",
        purpose: "take a compute's role of writer, if it has it, and stop following it",
        columns: WRITER_COLUMNS,
    },
    CommandSpec {
        usage: "kept_list",
        purpose: "timelines that no branch names, kept for those that were made from them",
        columns: &["timeline", "name", "ancestor_timeline", "ancestor_lsn"],
    },
    CommandSpec {
        usage: "lease_list",
        purpose: "what computes and readers need of history, so that it is not removed",
        columns: LEASE_COLUMNS,
    },
    CommandSpec {
        usage: "lease_set INSTANCE NAME T LSN [SECONDS [since]]",
        purpose: "keep history at an LSN, or since it, for a compute, or for a reader who renews that in time",
        columns: LEASE_COLUMNS,
    },
    CommandSpec {
        usage: "lease_narrow INSTANCE LSN",
        purpose: "keep history for one LSN of a lease only",
        columns: LEASE_COLUMNS,
    },
    CommandSpec {
        usage: "lease_renew INSTANCE",
        purpose: "let a lease last for its time from now on",
        columns: LEASE_COLUMNS,
    },
    CommandSpec {
        usage: "lease_drop INSTANCE",
        purpose: "end a lease, if there is one",
        columns: LEASE_COLUMNS,
    },
    CommandSpec {
        usage: "lease_all_known",
        purpose: "say that there is no compute without a lease; before that no history is removed",
        columns: LEASE_COLUMNS,
    },
    CommandSpec {
        usage: "checkpoint T",
        purpose: "put the history of a timeline into layers; a row for each, and one for the end",
        columns: &["lsn", "layer", "bytes", "wal_bytes"],
    },
    CommandSpec {
        usage: "compact T",
        purpose: "put the history of a timeline into few layers, with an image at its end; a row for each layer made or replaced, and one for the end and all layers",
        columns: &["lsn", "layer", "bytes", "replaced", "layers"],
    },
    CommandSpec {
        usage: "work_list",
        purpose: "what is being done about layers just now, and how far it is",
        columns: &["timeline", "kind", "lsn", "done", "total"],
    },
    CommandSpec {
        usage: "gc T [dry]",
        purpose: "remove layers of a timeline that nobody needs, or only list them; a row for each, one for whoever needs older ones, and one for where the history begins that is kept",
        columns: &["lsn", "layer", "bytes", "holder", "to_lsn", "bytes_left"],
    },
    CommandSpec {
        usage: "lsn_at T TIMESTAMP",
        purpose: "the LSN of the state at a time",
        columns: &["lsn"],
    },
    CommandSpec {
        usage: "timestamp_at T LSN",
        purpose: "when the latest transaction up to an LSN ended",
        columns: &["timestamp"],
    },
    CommandSpec { usage: "help", purpose: "this list", columns: &["command", "purpose"] },
];

impl CommandSpec {
    /// The first word.
    pub fn verb(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or(self.usage)
    }

    /// The command that begins with this word, in whatever case.
    pub fn find(verb: &str) -> Option<&'static CommandSpec> {
        COMMANDS.iter().find(|spec| spec.verb().eq_ignore_ascii_case(verb))
    }
}
