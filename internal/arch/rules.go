package arch

import "slices"

const (
	ownPrefix = "github.com/artstore/artstore-pki/"
	smallstep = "github.com/smallstep/certificates"
)

// Reasons that several rows share.
const (
	whyLeaf   = "a leaf is imported by all, so it imports the standard library and other leaves only"
	whyLight  = "services embed this package: it costs them the standard library, fsnotify and our leaves, nothing else"
	whyClient = "the client knows identities, never who issues them or what serves it: an ingester must not pay for a CA"
	whyCA     = "the authority issues and records; who uses certificates, and how they are looked at, is not its business"
	whyAudit  = "audit judges what it is shown; how certificates come to be must not leak into its checks"
	whyBridge = "an adapter brings the one library that it adapts to: who wants another must not pay for this one"
	whyFlags  = "what reads a command line knows no command, and nothing of what the commands do"
	whyDev    = "the reference services are peers of the client, not parts of it, and get their certificates like any service"
)

// leaves import no package of ours but each other and nothing foreign.
var leaves = []string{
	"internal/backoff",
	"internal/boundedfile",
	"internal/certs",
	"internal/connlimit",
	"internal/durable",
	"internal/errtext",
	"internal/fileperm",
	"internal/flock",
	"internal/hook",
	"internal/humantime",
	"internal/jws",
	"internal/lifetime",
	"internal/lograte",
	"internal/logtest",
	"internal/panics",
	"internal/pemfile",
	"internal/porttest",
	"internal/printable",
	"internal/pubkey",
	"internal/revocation",
	"secret",
	"internal/stepapi",
	"internal/strictjson",
	"internal/tlsalert",
	"internal/unixsocket",
	"internal/uuid",
	"internal/waittest",
	"internal/wallclock",
	"internal/webpage",
}

// serving is the package that servers may import besides the leaves. Package rotation may not,
// because the service that embeds an identity has a server of its own.
const serving = "httpserver"

// rooms is the folder of the packages that commands share.
const rooms = "cmd/artstore-pki/internal/"

// Rules returns the house as it is drawn in docs/architecture.md. A row may
// stand before its package does.
func Rules() []Rule {
	var rules []Rule
	for _, leaf := range leaves {
		rules = append(rules, Rule{Package: leaf, Own: leaves, Why: whyLeaf})
	}
	return slices.Concat(rules, serviceRules(), recordRules(), authorityRules(), auditRules(), commandRules())
}

// serviceRules are those of what services embed, and of what tests share.
func serviceRules() []Rule {
	return []Rule{
		{Package: serving, Own: leaves, Why: whyLeaf},
		{Package: "internal/strictyaml", Own: leaves, Modules: []string{"go.yaml.in/yaml/v3"}, Why: "how a file is read does not depend on what its keys mean"},
		{Package: "internal/filewatch", Modules: []string{"github.com/fsnotify/fsnotify"}, Why: "what says that files have changed does not know what they are; services embed it, so it costs them fsnotify and nothing else"},
		{Package: "internal/coredump", Modules: []string{"golang.org/x/sys"}, Why: "it is for main, and asks the kernel for one thing"},
		{Package: "internal/arch", Why: "a guard that imports what it guards can be broken by it"},
		{Package: "internal/arch/report", Own: []string{"internal/arch"}, Why: "it prints what the guard counts"},

		{Package: "rotation/status", Why: whyLight},
		{Package: "rotation", Own: with(leaves, "rotation/status"), Why: whyLight},
		{Package: "rotation/internal/fileaccess", Own: []string{"internal/durable"}, Why: whyLight},
		{Package: "rotation/files", Own: with(leaves, "rotation", "internal/filewatch"), Why: whyLight},
		{Package: "rotation/enroll", Own: with(leaves, "rotation", "rotation/internal/fileaccess"), Why: whyLight},
		{Package: "rotation/agent/internal/formats", Own: with(leaves, "rotation"), Modules: []string{"github.com/pavlo-v-chernykh/keystore-go/v4", "software.sslmate.com/src/go-pkcs12"}, Why: "how an identity is encoded does not depend on where it is written"},
		{Package: "rotation/agent", Own: with(leaves, serving, "internal/strictyaml", "rotation", "rotation/agent/internal/formats", "rotation/enroll", "rotation/internal/fileaccess", "rotation/workload"), Why: "the agent keeps certificates for other programs, as files and over a socket: how a server is asked for its own is given to it, and who issues is the business of enroll"},
		{Package: "rotation/spiffe", Own: with(leaves, "rotation"), Modules: []string{
			"github.com/spiffe/go-spiffe/v2/bundle/x509bundle", "github.com/spiffe/go-spiffe/v2/spiffeid", "github.com/spiffe/go-spiffe/v2/svid/x509svid",
		}, Why: whyBridge}, // not the module: its workloadapi links gRPC
		{Package: "rotation/prom", Own: with(leaves, "rotation", "rotation/status"), Modules: []string{"github.com/prometheus/client_golang"}, Why: whyBridge},
		{Package: "rotation/rotgrpc", Own: with(leaves, "rotation"), Modules: []string{"google.golang.org/grpc"}, Why: whyBridge},
		{Package: "rotation/workload", Own: with(leaves, "rotation", "rotation/spiffe"), Modules: []string{
			"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload", "github.com/spiffe/go-spiffe/v2/spiffeid", "golang.org/x/sys", "google.golang.org/grpc", "google.golang.org/protobuf",
		}, Why: whyBridge},
		{Package: "rotation/proxy", Own: with(leaves, "rotation"), Modules: []string{"github.com/pires/go-proxyproto"}, Why: "what stands in front of a service or beside a program needs an identity, and knows no authority"},
		{Package: "internal/testpki", Why: "tests of leaves use it, so it imports none of them"},
		{Package: "internal/pkitest", Own: with(leaves, "rotation", "internal/testpki"), Why: "a test kit for what stands on rotation drags nothing else into its tests"},

		{Package: "internal/pgtest", Own: leaves, Modules: []string{"github.com/jackc/pgx/v5"}, Why: "a test kit for what stores or looks at records drags nothing else into its tests"},

		{Package: "internal/fattest", Why: "a test kit for leaves imports none of them"},
		{Package: "internal/dnstest", Modules: []string{"golang.org/x/net"}, Why: "a test kit for ACME drags nothing else into its tests"},
		{Package: "scripts/dnsd", Own: with(leaves, "internal/dnstest"), Why: "a tool of a script is that and no more"},

		{Package: "ingestclient", Own: with(leaves, "rotation", "ingestclient/internal/..."), Why: whyClient},
		{Package: "ingestclient/internal/...", Own: leaves, Why: "rooms of the client that know nothing of it: the standard library and leaves are enough for each"},
		{Package: "ingestclient/spool", Own: with(leaves, "ingestclient", "ingestclient/spool/internal/...", "ingestclient/spool/status"), Why: "it is the client's queue: its journal and its files are its own"},
		{Package: "ingestclient/spool/status", Why: "it is values that commands print, and knows nothing"},
		{Package: "ingestclient/spool/internal/fileat", Modules: []string{"golang.org/x/sys"}, Why: "it moves files between open directories, for which the standard library has no call, and knows no queue"},
		{Package: "ingestclient/spool/internal/journal", Own: with(leaves, "ingestclient/spool/internal/fileat"), Why: "the journal says what may be at an element, and must not know who asks"},
		{Package: "ingestclient/ingesttest", Own: with(leaves, "internal/testpki", serving, "rotation", "ingestclient", "internal/devstack"), Modules: []string{"*"}, Why: whyClient},

		{Package: "internal/tokensocket", Own: with(leaves, serving, "ingestclient"), Why: "it hands out what the client has: how that is configured, and on which identity it runs, is the business of commands"},
	}
}

// recordRules are those of what records.
func recordRules() []Rule {
	return []Rule{
		{Package: "ca/translog", Modules: []string{"golang.org/x/mod"}, Why: "whoever checks a log must not pay for the authority that writes it"},
		{Package: "ca/record/kinds", Why: "the words of the record are for all who read it"},
		{Package: "ca/record/reasons", Why: "the words of the record are for all who read it"},
		{Package: "ca/record", Own: leaves, Why: "what the record says does not depend on where it is kept"},
		{Package: "ca/internal/sqldb", Own: leaves, Modules: []string{"github.com/jackc/pgx/v5", "github.com/pressly/goose/v3", "modernc.org/sqlite"}, Why: "what runs transactions knows nothing of what the tables mean"},
		{Package: "ca/internal/certrow", Own: with(leaves, "ca/internal/sqldb", "ca/record"), Why: "how a certificate lies in the tables does not depend on who reads it"},
		{Package: "ca/internal/tally", Own: with(leaves, "ca/internal/sqldb", "ca/record/kinds"), Why: "what counts events and certificates decides nothing, and does not know who looks at the counts"},
		{Package: "ca/internal/eventlog", Own: with(leaves, "ca/internal/certrow", "ca/internal/sqldb", "ca/internal/tally", "ca/record", "ca/record/kinds", "ca/translog"), Modules: []string{"golang.org/x/mod"}, Why: "the log tells of what others record, and knows none of them"},
		{Package: "ca/internal/acmestore", Own: with(leaves, "ca/internal/certrow", "ca/internal/eventlog", "ca/internal/sqldb", "ca/record", "ca/record/kinds"), Modules: []string{smallstep, "go.step.sm/crypto"}, Why: "what an ACME server has to remember says nothing of how it decides"},
		{Package: "ca/internal/truststore", Own: with(leaves, "ca/internal/eventlog", "ca/internal/sqldb", "ca/internal/tally", "ca/record", "ca/record/kinds"), Why: "what is kept of the trust says nothing of who may change it"},
		{Package: "ca/internal/trust", Own: with(leaves, "ca/internal/cacert", "ca/internal/truststore", "ca/record", "ca/translog"), Why: "which step comes after which does not depend on who takes it"},
		{Package: "ca/internal/trustplan", Own: with(leaves, "ca/internal/cacert", "ca/internal/crl", "ca/internal/statedir", "ca/internal/trust", "ca/internal/truststore", "ca/internal/validity", "ca/policy", "ca/translog"), Why: "what a step consists of is known before it is taken, and says nothing of who takes it or tells others"},
		{Package: "ca/store", Own: with(leaves, "ca/internal/certrow", "ca/internal/eventlog", "ca/internal/sqldb", "ca/internal/truststore", "ca/record", "ca/record/kinds", "ca/translog"), Modules: []string{"golang.org/x/mod"}, Why: whyCA},
	}
}

// authorityRules are those of what issues.
func authorityRules() []Rule {
	return []Rule{
		{Package: "ca/internal/statedir", Own: with(leaves, "ca/internal/cacert", "ca/internal/keystore", "ca/internal/keytype", "ca/internal/sqldb", "ca/internal/trust", "ca/internal/truststore", "ca/record", "ca/record/kinds", "ca/store", "ca/translog"), Modules: []string{"go.step.sm/crypto/jose", "go.step.sm/crypto/pemutil"}, Why: "what two rooms of the authority share knows neither of them"},
		{Package: "ca/internal/keystore", Own: []string{"ca/internal/keytype", "secret", "internal/fileperm"}, Modules: []string{"go.step.sm/crypto/kms"}, Why: "where a key is does not depend on what it signs; devices and clouds come in by build tags only"},
		{Package: "ca/internal/hsmtest", Why: "a token for tests knows none of what signs with it"},
		{Package: "ca/internal/damage", Own: with(leaves, "ca/internal/statedir"), Modules: []string{"modernc.org/sqlite"}, Why: "what damages a state directory in tests knows files only"},
		{Package: "ca/internal/names", Own: leaves, Modules: []string{"golang.org/x/net", "golang.org/x/crypto/cryptobyte"}, Why: "which names there are does not depend on who issues them"},
		{Package: "ca/internal/denial", Why: "a rule that refuses is a word, and needs nothing of who applies it"},
		{Package: "ca/internal/keytype", Modules: []string{"go.step.sm/crypto/keyutil"}, Why: "which kinds of keys there are does not depend on who uses them"},
		{Package: "ca/internal/cacert", Own: []string{"ca/internal/keytype", "internal/certs", "internal/pubkey"}, Modules: []string{"go.step.sm/crypto/x509util"}, Why: "how a CA certificate looks does not depend on where it is kept or what it signs"},
		{Package: "ca/internal/crl", Own: with(leaves, "ca/internal/cacert", "ca/internal/keytype", "ca/internal/statedir", "ca/record", "ca/store"), Modules: []string{"golang.org/x/crypto/cryptobyte"}, Why: "what is revoked is in the record: who revoked it, and who asks for the list, is not its business"},
		{Package: "ca/internal/auditlog", Own: leaves, Why: "what writes lines for collectors does not decide what is told"},
		{Package: "ca/internal/throttle", Why: "when work is due does not depend on what the work is"},
		{Package: "ca/internal/livelimit", Own: []string{"ca/internal/lru"}, Why: "what remembers counts does not decide what they limit"},
		{Package: "ca/internal/ari", Why: "the words of renewal information say nothing of when to renew"},
		{Package: "ca/internal/watch", Own: []string{"ca/internal/lru"}, Why: "who waits for what is told to it: it knows no HTTP, no record and no certificate"},
		{Package: "ca/internal/lru", Why: "what bounds memory knows nothing of what it holds"},
		{Package: "ca/policy", Own: with(leaves, "internal/strictyaml", "ca/internal/denial", "ca/internal/keystore", "ca/internal/keytype", "ca/internal/names", "ca/internal/sqldb", "ca/internal/statedir"), Modules: []string{"go.step.sm/crypto/jose", "go.yaml.in/yaml/v3"}, Why: "the configuration says what is allowed, and knows nothing of who asks"},
		{Package: "ca/internal/joseheader", Own: leaves, Why: "what reads a header before anything else does knows no token"},
		{Package: "ca/internal/pkcs10", Own: with(leaves, "ca/internal/denial"), Why: "what a request for a certificate says does not depend on who may send it"},
		{Package: "ca/internal/validity", Own: with(leaves, "ca/internal/denial", "ca/policy"), Why: "the dates of a certificate follow from what is asked and allowed, whoever asks"},
		{Package: "ca/internal/ratelimit", Own: []string{"ca/internal/lru", "ca/policy"}, Modules: []string{"golang.org/x/time/rate"}, Why: "how many requests may come does not depend on what they ask for"},
		{Package: "ca/internal/problem", Why: "what a client is told has one form, and needs nothing of who tells it"},
		{Package: "ca/internal/challenge", Own: with(leaves, "ca/internal/problem"), Why: "what connects to machines of strangers knows no account, no record and no key"},
		{Package: "ca/internal/acmesrv", Own: with(leaves, "ca/internal/acmestore", "ca/internal/ari", "ca/internal/challenge", "ca/internal/denial", "ca/internal/joseheader", "ca/internal/names", "ca/internal/pkcs10", "ca/internal/problem", "ca/internal/ratelimit", "ca/internal/throttle", "ca/policy", "ca/record", "ca/record/reasons", "ca/store"), Modules: []string{smallstep, "github.com/go-chi/chi/v5", "go.step.sm/crypto/jose"}, Why: "the server of ACME asks an interface for certificates, and never learns how they are issued"},
		{Package: "ca", Own: with(leaves, serving,
			"ca/internal/acmesrv",
			"ca/internal/acmestore",
			"ca/internal/ari",
			"ca/internal/auditlog",
			"ca/internal/cacert",
			"ca/internal/crl",
			"ca/internal/denial",
			"ca/internal/enrolkey",
			"ca/internal/eventlog",
			"ca/internal/joseheader",
			"ca/internal/keytype",
			"ca/internal/livelimit",
			"ca/internal/lru",
			"ca/internal/names",
			"ca/internal/pkcs10",
			"ca/internal/problem",
			"ca/internal/ratelimit",
			"ca/internal/sqldb",
			"ca/internal/statedir",
			"ca/internal/tally",
			"ca/internal/throttle",
			"ca/internal/trust",
			"ca/internal/trustplan",
			"ca/internal/truststore",
			"ca/internal/validity",
			"ca/internal/watch",
			"ca/policy",
			"ca/record",
			"ca/record/kinds",
			"ca/record/reasons",
			"ca/store",
			"ca/translog",
		), Modules: []string{smallstep, "*"}, Why: whyCA},
		{Package: "ca/internal/enrolkey", Own: with(leaves, "ca/internal/statedir", "ca/policy"), Modules: []string{"go.step.sm/crypto/jose"}, Why: "a key that signs tokens does not say what is in them"},
		{Package: "ca/dashboard/internal/page", Own: leaves, Why: "how a page is written does not depend on what it is about"},
		{Package: "ca/dashboard/internal/query", Own: with(leaves, "ca/internal/certrow", "ca/internal/sqldb", "ca/internal/tally", "ca/internal/truststore", "ca/record", "ca/record/kinds"), Why: "what is asked of a record does not depend on how it is shown, and changes nothing"},
		{Package: "ca/dashboard", Own: with(leaves, "ca/dashboard/internal/page", "ca/dashboard/internal/query", "ca/internal/cacert", "ca/internal/crl", "ca/internal/eventlog", "ca/internal/sqldb", "ca/internal/statedir", "ca/internal/tally", "ca/internal/trust", "ca/internal/truststore", "ca/policy", "ca/record", "ca/record/kinds", "ca/record/reasons", "ca/store", "ca/translog"), Why: "what shows the record issues nothing, and who may look is decided by what serves it"},
		{Package: "ca/doctor", Own: with(leaves, "ca", "ca/internal/cacert", "ca/internal/crl", "ca/internal/enrolkey", "ca/internal/keystore", "ca/internal/sqldb", "ca/internal/statedir", "ca/internal/trust", "ca/internal/truststore", "ca/internal/validity", "ca/policy", "ca/store"), Why: "who looks for faults issues nothing, and the authority runs without it"},
		{Package: "ca/setup", Own: with(leaves, "ca/internal/cacert", "ca/internal/crl", "ca/internal/keystore", "ca/internal/sqldb", "ca/internal/statedir", "ca/policy", "ca/store", "ca/translog"), Modules: []string{"go.step.sm/crypto/jose"}, Why: "making an authority is done once, and needs nothing of what runs one"},
		{Package: "ca/internal/configedit", Modules: []string{"go.yaml.in/yaml/v3"}, Why: "what edits the text of a configuration does not know what its values mean"},
		{Package: "ca/keychange", Own: with(leaves, "ca/internal/configedit", "ca/internal/statedir", "ca/policy", "ca/record", "ca/record/kinds", "ca/setup", "ca/store", "ca/translog"), Modules: []string{"go.step.sm/crypto/jose"}, Why: "changing a secret is of files and one event: it issues nothing, and the authority runs without it"},
		{Package: "ca/backup", Own: with(leaves, "ca", "ca/internal/statedir", "ca/policy", "ca/record", "ca/record/kinds", "ca/store", "ca/translog"), Why: "a backup is of files: it issues nothing, and the authority runs without it"},
		{Package: "ca/catest", Own: with(leaves, serving, "ca", "ca/policy", "ca/record", "ca/record/kinds", "ca/setup", "ca/store"), Modules: []string{"*"}, Why: whyCA},
		{Package: "ca/internal/storetest", Own: []string{"ca/record", "ca/record/kinds", "ca/store", "ca/translog", "internal/certs"}, Modules: []string{"github.com/jackc/pgx/v5"}, Why: "a test kit for records knows no authority: what keeps and verifies them knows none either"},
		{Package: "ca/internal/acmetest", Own: []string{"ca/catest", "ca/policy", "internal/certs", "internal/dnstest", "internal/testpki"}, Modules: []string{"go.step.sm/crypto/jose", "golang.org/x/crypto/acme"}, Why: "a test kit for ACME is a client and its network: it knows nothing of what serves it"},
	}
}

// auditRules are those of what looks at certificates, and of settings and reference services.
func auditRules() []Rule {
	return []Rule{
		{Package: "audit/internal/certtest", Own: with(leaves, "internal/testpki", "audit/cert"), Why: "what is made for tests does not depend on how it is looked at"},
		{Package: "audit/internal/dertest", Own: []string{"audit/internal/certtest"}, Modules: []string{"golang.org/x/crypto/cryptobyte"}, Why: "what is made for tests does not depend on how it is looked at"},
		{Package: "audit/internal/audittest", Own: with(leaves, "audit", "audit/cert", "audit/report", "audit/source", "audit/internal/certtest", "audit/internal/format"), Modules: []string{"github.com/prometheus/common"}, Why: "a test kit drags nothing but the audit into tests"},
		{Package: "audit/internal/format", Own: with(leaves, "audit/cert", "audit/internal/..."), Modules: []string{"go.yaml.in/yaml/v3", "golang.org/x/crypto/cryptobyte", "golang.org/x/crypto/ssh"}, Why: "what files hold does not depend on how that is judged"},
		{Package: "audit/internal/...", Own: with(leaves, "audit/internal/ber", "audit/internal/rc2"), Modules: []string{"golang.org/x/crypto/chacha20poly1305", "golang.org/x/crypto/cryptobyte"}, Why: "what turns bytes into other bytes or values knows nothing of what is judged"},
		{Package: "audit/compare", Why: "it reads reports, whatever made them"},
		{Package: "audit/cert", Own: with(leaves, "audit/internal/algorithms", "audit/internal/ber", "audit/internal/wording"), Modules: []string{"golang.org/x/crypto/cryptobyte"}, Why: "what is known of a certificate does not depend on who finds or judges it"},
		{Package: "audit/served", Own: []string{"audit/internal/endpoint"}, Why: "what a server serves now does not depend on how that is judged"},
		{Package: "audit/source", Own: with(leaves, "audit", "audit/cert", "audit/internal/..."), Modules: []string{"github.com/bmatcuk/doublestar/v4"}, Why: "a source finds certificates; what is said of them is not its business"},
		{Package: "audit/report", Own: with(leaves, "audit", "audit/cert", "audit/internal/wording"), Modules: []string{"github.com/CycloneDX/cyclonedx-go", "github.com/mattn/go-runewidth"}, Why: "a report writes what it is given, wherever that was found"},
		{Package: "audit/exporter", Own: with(leaves, serving, "internal/filewatch", "internal/strictyaml", "audit", "audit/report", "audit/source"), Modules: []string{"github.com/bmatcuk/doublestar/v4", "github.com/prometheus/client_golang", "github.com/prometheus/common"}, Why: "what audits for months is the audit and a schedule: how it is reached, and where a record is, is told to it"},
		{Package: "audit", Own: with(leaves, "audit/cert", "audit/internal/endpoint", "audit/internal/openssl", "audit/internal/ordered", "audit/internal/wording"), Modules: []string{"golang.org/x/crypto/cryptobyte"}, Why: whyAudit},
		{Package: "internal/settings", Own: with(leaves, "ingestclient"), Modules: []string{"go.yaml.in/yaml/v3"}, Why: "settings say what was meant, and take the defaults from where they apply; what they are used for is the business of commands"},
		{Package: "internal/devstack", Own: with(leaves, serving, "rotation"), Modules: []string{"*"}, Why: whyDev},
	}
}

// commandRules are those of programs. The last one is for all that has none of its own.
func commandRules() []Rule {
	return []Rule{
		{Package: "examples/...", Own: []string{"ingestclient", "rotation", "rotation/enroll", "rotation/files", "secret"}, Why: "an example does what a user of the module can do: it needs no internal package and no other module"},
		{Package: "cmd/artstore-pki/internal/ui", Own: leaves, Modules: []string{"github.com/urfave/cli/v2", "golang.org/x/term"}, Why: "what talks to people knows no command and nothing that can fail"},
		{Package: "cmd/artstore-pki/internal/values", Own: leaves, Modules: []string{"github.com/urfave/cli/v2"}, Why: "a kind of value does not depend on the flags that take it"},
		{Package: "cmd/artstore-pki/internal/flags", Own: with(leaves, rooms+"ui"), Modules: []string{"github.com/urfave/cli/v2"}, Why: whyFlags},
		{Package: "cmd/artstore-pki/internal/output", Own: with(leaves, rooms+"ui"), Modules: []string{"github.com/urfave/cli/v2"}, Why: whyFlags},
		{Package: "cmd/artstore-pki/internal/credentials", Own: with(leaves, rooms+"ui"), Modules: []string{"github.com/urfave/cli/v2"}, Why: whyFlags},
		{Package: "cmd/artstore-pki/internal/hints", Own: with(leaves, rooms+"ui", rooms+"credentials", "ingestclient", "rotation/enroll"), Why: "advice knows the kinds of errors, and opens nothing"},
		{Package: "cmd/artstore-pki/internal/statehints", Own: with(leaves, rooms+"ui", rooms+"flags", "ca", "ca/policy", "ca/setup", "ca/translog"), Why: "advice about a state directory looks into it, and so costs the authority, which other advice does not"},
		{Package: "cmd/artstore-pki/internal/pages", Own: []string{"audit"}, Why: "what reads a record page by page does not know where the record is"},
		{Package: "cmd/artstore-pki/internal/records", Own: with(leaves, rooms+"ui", rooms+"pages", rooms+"statehints", "audit", "ca", "ca/record"), Why: "whoever looks at a record needs no key and serves nothing"},
		{Package: "cmd/artstore-pki/internal/help", Own: with(leaves, rooms+"ui", rooms+"flags", rooms+"output", "internal/settings"), Modules: []string{"github.com/urfave/cli/v2"}, Why: "what explains commands is told of them, and cannot do what they do"},
		{Package: "cmd/artstore-pki/internal/serving", Own: with(leaves, serving, rooms+"ui", rooms+"flags", "rotation", "rotation/prom"), Modules: []string{"github.com/coreos/go-systemd/v22/daemon", "github.com/prometheus/client_golang", "github.com/urfave/cli/v2", "golang.org/x/sync"}, Why: "what serves does not know which command wants it served"},
		{Package: "cmd/artstore-pki/internal/caserver", Own: with(leaves, serving, rooms+"serving", "ca", "rotation"), Modules: []string{"github.com/prometheus/client_golang", "github.com/urfave/cli/v2", "golang.org/x/sync"}, Why: "what serves an authority does not know which command wants it served"},
		{Package: "cmd/artstore-pki/internal/identity", Own: with(leaves, rooms+"ui", rooms+"flags", rooms+"values", "rotation", "rotation/enroll", "rotation/files"), Modules: []string{"github.com/urfave/cli/v2"}, Why: "where an identity comes from does not depend on what it is for"},
		{Package: "cmd/artstore-pki/internal/uploads", Own: with(leaves, rooms+"ui", rooms+"values", rooms+"identity", rooms+"serving", "ingestclient", "internal/settings", "rotation", "rotation/files"), Modules: []string{"github.com/prometheus/client_golang", "github.com/urfave/cli/v2", "go.opentelemetry.io"}, Why: "what uploads knows no queue, no demo and no other command"},
		{Package: "cmd/artstore-pki/internal/loadgen", Own: []string{"ingestclient"}, Why: "what makes load knows the client and nothing that it runs on"},
		{Package: "cmd/artstore-pki/internal/agentcmd", Own: with(leaves, serving, rooms+"ui", rooms+"flags", rooms+"help", rooms+"output", rooms+"serving", "audit/served", "rotation", "rotation/agent", "rotation/prom", "rotation/workload"), Modules: []string{"github.com/prometheus/client_golang", "github.com/urfave/cli/v2", "golang.org/x/sync"}, Why: "the agent is in builds without the authority too"},
		{Package: "cmd/artstore-pki/internal/exportercmd", Own: with(leaves, serving, rooms+"ui", rooms+"flags", rooms+"help", rooms+"identity", rooms+"serving", "audit", "audit/exporter", "rotation", "rotation/prom"), Modules: []string{"github.com/urfave/cli/v2"}, Why: "the exporter is in builds without the authority too: who opens a record is given to it"},
		{Package: "cmd/artstore-pki/internal/demo", Own: with(leaves, serving, rooms+"ui", rooms+"flags", rooms+"output", rooms+"identity", rooms+"loadgen", rooms+"records", rooms+"caserver", rooms+"serving", rooms+"uploads", "audit", "audit/exporter", "audit/report", "audit/source", "ca", "ca/dashboard", "ca/setup", "ingestclient", "internal/devstack", "rotation", "rotation/enroll", "rotation/prom"), Modules: []string{"github.com/prometheus/client_golang", "go.yaml.in/yaml/v3", "golang.org/x/sync"}, Why: "the demo joins all parts, and no part knows of it"},
		{Package: "cmd/artstore-pki/internal/operate", Own: with(leaves, rooms+"ui", rooms+"flags", rooms+"help", rooms+"output", rooms+"values", rooms+"credentials", rooms+"hints", rooms+"records", rooms+"statehints", "ca", "rotation/enroll"), Modules: []string{"github.com/urfave/cli/v2"}, Why: "who gives orders to an authority decides nothing: the authority does"},
		{Package: "cmd/artstore-pki/internal/devcerts", Own: with(leaves, rooms+"ui", rooms+"flags", rooms+"output", rooms+"credentials", rooms+"statehints", rooms+"caserver", rooms+"serving", "ca", "ca/policy", "ca/setup", "rotation", "rotation/enroll"), Modules: []string{"go.step.sm/crypto/x509util", "golang.org/x/sync"}, Why: "certificates for developers come from an authority like any other, over its API"},
		{Package: "cmd/artstore-pki/internal/cacmd", Own: with(leaves, serving, rooms+"ui", rooms+"identity", rooms+"flags", rooms+"help", rooms+"output", rooms+"values", rooms+"credentials", rooms+"hints", rooms+"statehints", rooms+"records", rooms+"serving", rooms+"caserver", rooms+"operate", "ca", "ca/backup", "ca/dashboard", "ca/doctor", "ca/keychange", "ca/policy", "ca/record", "ca/record/kinds", "ca/record/reasons", "ca/setup", "ca/store", "ca/translog", "rotation"), Modules: []string{"filippo.io/age", "github.com/mattn/go-runewidth", "github.com/prometheus/client_golang", "github.com/urfave/cli/v2", "golang.org/x/sync"}, Why: "commands of the authority know no client of it, and no other command knows them"},
		{Package: "cmd/artstore-pki/internal/dev", Own: with(leaves, serving, rooms+"ui", rooms+"flags", rooms+"help", rooms+"output", rooms+"values", rooms+"identity", rooms+"serving", rooms+"caserver", rooms+"uploads", rooms+"loadgen", rooms+"demo", rooms+"devcerts", "ca", "ca/policy", "ca/setup", "internal/devstack", "rotation", "rotation/proxy"), Modules: []string{"github.com/urfave/cli/v2", "golang.org/x/sync"}, Why: "commands for developers start what others import, and no other command knows them"},
		{Package: "cmd/artstore-pki/internal/proxycmd", Own: with(leaves, rooms+"ui", rooms+"flags", rooms+"help", rooms+"values", rooms+"identity", rooms+"serving", "rotation", "rotation/proxy"), Modules: []string{"github.com/prometheus/client_golang", "github.com/urfave/cli/v2"}, Why: "what stands beside programs of others knows no other command, and nothing of the authority"},
		{Package: "cmd/...", Own: with(leaves, serving, "cmd/artstore-pki/internal/...",
			"audit", "audit/cert", "audit/compare", "audit/report", "audit/served", "audit/source",
			"ca", "ca/backup", "ca/dashboard", "ca/doctor", "ca/keychange", "ca/policy", "ca/record", "ca/record/kinds", "ca/record/reasons", "ca/setup", "ca/store", "ca/translog", "ingestclient", "ingestclient/spool", "ingestclient/spool/status", "internal/coredump", "internal/devstack", "internal/settings", "internal/tokensocket", "rotation", "rotation/...",
		), Modules: []string{"*"}, Why: "commands wire packages together; test kits and guards are not part of the program"},
	}
}

// with returns a new list; appending to the shared one could overwrite a row.
func with(list []string, more ...string) []string {
	return append(append(make([]string, 0, len(list)+len(more)), list...), more...)
}
