CREATE TABLE queue(name TEXT PRIMARY KEY) WITHOUT ROWID;

-- prio: 0 is first. eta: held back until then. owner: the session that holds it. tries: deliveries without an outcome.
CREATE TABLE msg(seq INTEGER PRIMARY KEY, queue TEXT NOT NULL, prio INT NOT NULL, eta INT, owner INT,
  tries INT NOT NULL DEFAULT 0,
  headers BLOB NOT NULL, content_type TEXT NOT NULL, content_encoding TEXT NOT NULL, correlation_id TEXT, reply_to TEXT,
  priority INT, delivery_mode INT, expiration TEXT, body BLOB NOT NULL);
CREATE INDEX msg_ready ON msg(queue, prio, seq) WHERE owner IS NULL AND eta IS NULL;
CREATE INDEX msg_held ON msg(owner) WHERE owner IS NOT NULL;
CREATE INDEX msg_eta ON msg(eta, queue) WHERE eta IS NOT NULL;

-- until: end of the lease; lease: its length, which shows a clock that was set back.
CREATE TABLE session(owner INTEGER PRIMARY KEY, until INT NOT NULL, lease INT NOT NULL, name TEXT NOT NULL);

CREATE TABLE dead(id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, prio INT NOT NULL, tries INT NOT NULL,
  kind TEXT NOT NULL, detail TEXT NOT NULL, worker TEXT NOT NULL, at INT NOT NULL,
  headers BLOB NOT NULL, content_type TEXT NOT NULL, content_encoding TEXT NOT NULL, correlation_id TEXT, reply_to TEXT,
  priority INT, delivery_mode INT, expiration TEXT, body BLOB NOT NULL);

-- id: the 16 bytes of a UUID, or text. expires NULL: never. final: a SUCCESS, which stands.
CREATE TABLE result(id PRIMARY KEY NOT NULL, expires INT, final INT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX result_expires ON result(expires) WHERE expires IS NOT NULL;

PRAGMA application_id = 1920430699;
PRAGMA user_version = 1;
