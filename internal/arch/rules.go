package arch

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
	whyDev    = "the reference services are peers of the client, not parts of it, and get their certificates like any service"
)

// leaves import no package of ours but each other and nothing foreign.
var leaves = []string{
	"internal/connlimit",
	"internal/durable",
	"internal/fileperm",
	"internal/flock",
	"internal/humantime",
	"internal/lifetime",
	"internal/lograte",
	"internal/logtest",
	"internal/pemfile",
	"internal/printable",
	"internal/pubkey",
	"internal/revocation",
	"secret",
	"internal/stepapi",
	"internal/uuid",
}

// serving is what a package that listens may have besides the leaves. It is no
// leaf for rotation: who embeds an identity has a server of its own.
const serving = "internal/httpsrv"

// Rules returns the house as it is drawn in docs/architecture.md. A row may
// stand before its package does.
func Rules() []Rule {
	rules := make([]Rule, 0, len(leaves)+12)
	for _, leaf := range leaves {
		rules = append(rules, Rule{Package: leaf, Own: leaves, Why: whyLeaf})
	}
	return append(rules,
		Rule{Package: serving, Own: leaves, Why: whyLeaf},
		Rule{Package: "internal/coredump", Modules: []string{"golang.org/x/sys"}, Why: "it is for main, and asks the kernel for one thing"},
		Rule{Package: "internal/arch", Why: "a guard that imports what it guards can be broken by it"},

		Rule{Package: "rotation", Own: leaves, Modules: []string{"github.com/fsnotify/fsnotify"}, Why: whyLight},
		Rule{Package: "rotation/enroll", Own: with(leaves, "rotation"), Why: whyLight},
		Rule{Package: "rotation/spiffe", Own: with(leaves, "rotation"), Modules: []string{
			"github.com/spiffe/go-spiffe/v2/bundle/x509bundle", "github.com/spiffe/go-spiffe/v2/spiffeid", "github.com/spiffe/go-spiffe/v2/svid/x509svid",
		}, Why: whyBridge}, // not the module: its workloadapi links gRPC
		Rule{Package: "rotation/prom", Own: with(leaves, "rotation"), Modules: []string{"github.com/prometheus/client_golang"}, Why: whyBridge},
		Rule{Package: "rotation/rotgrpc", Own: with(leaves, "rotation"), Modules: []string{"google.golang.org/grpc"}, Why: whyBridge},
		Rule{Package: "internal/pkitest", Own: with(leaves, "rotation"), Why: "a test kit for what stands on rotation drags nothing else into its tests"},

		Rule{Package: "internal/pgtest", Own: leaves, Modules: []string{"github.com/jackc/pgx/v5"}, Why: "a test kit for what stores or looks at records drags nothing else into its tests"},

		Rule{Package: "internal/fattest", Why: "a test kit for leaves imports none of them"},
		Rule{Package: "internal/dnstest", Modules: []string{"golang.org/x/net"}, Why: "a test kit for ACME drags nothing else into its tests"},
		Rule{Package: "scripts/dnsd", Own: with(leaves, "internal/dnstest"), Why: "a tool of a script is that and no more"},

		Rule{Package: "ingestclient", Own: with(leaves, "rotation", "ingestclient/internal/..."), Why: whyClient},
		Rule{Package: "ingestclient/internal/...", Why: "rooms of the client that know nothing of it: the standard library is enough for each"},
		Rule{Package: "ingestclient/spool", Own: with(leaves, "ingestclient"), Modules: []string{"golang.org/x/sys"}, Why: "it is the client's queue, and moves files between open directories, for which the standard library has no call"},
		Rule{Package: "ingestclient/ingesttest", Own: with(leaves, serving, "rotation", "ingestclient", "internal/devstack"), Modules: []string{"*"}, Why: whyClient},

		Rule{Package: "internal/tokensocket", Own: with(leaves, serving, "ingestclient"), Why: "it hands out what the client has: how that is configured, and on which identity it runs, is the business of commands"},

		Rule{Package: "ca/translog", Modules: []string{"golang.org/x/mod"}, Why: "whoever checks a log must not pay for the authority that writes it"},
		Rule{Package: "ca/store", Own: with(leaves, "ca/translog"), Modules: []string{smallstep, "*"}, Why: whyCA},
		Rule{Package: "ca/internal/statedir", Own: with(leaves, "ca/store", "ca/translog"), Why: "what two rooms of the authority share knows neither of them"},
		Rule{Package: "ca/internal/damage", Own: with(leaves, "ca/internal/statedir"), Modules: []string{"modernc.org/sqlite"}, Why: "what damages a state directory in tests knows files only"},
		Rule{Package: "ca/internal/names", Own: leaves, Modules: []string{"golang.org/x/net", "golang.org/x/crypto/cryptobyte"}, Why: "which names there are does not depend on who issues them"},
		Rule{Package: "ca/internal/problem", Why: "what a client is told has one form, and needs nothing of who tells it"},
		Rule{Package: "ca/internal/challenge", Own: []string{"ca/internal/problem"}, Why: "what connects to machines of strangers knows no account, no record and no key"},
		Rule{Package: "ca", Own: with(leaves, serving, "ca/internal/challenge", "ca/internal/names", "ca/internal/problem", "ca/internal/statedir", "ca/store", "ca/translog"), Modules: []string{smallstep, "*"}, Why: whyCA},
		Rule{Package: "ca/backup", Own: with(leaves, "ca", "ca/internal/statedir", "ca/store", "ca/translog"), Why: "a backup is of files: it issues nothing, and the authority runs without it"},
		Rule{Package: "ca/catest", Own: with(leaves, serving, "ca", "ca/store"), Modules: []string{"*"}, Why: whyCA},

		Rule{Package: "internal/rc2", Why: whyLeaf},
		Rule{Package: "audit", Own: with(leaves, "internal/rc2"), Modules: []string{"*"}, Why: whyAudit},
		Rule{Package: "internal/settings", Own: with(leaves, "ingestclient"), Modules: []string{"go.yaml.in/yaml/v3"}, Why: "settings say what was meant, and take the defaults from where they apply; what they are used for is the business of commands"},
		Rule{Package: "internal/devstack", Own: with(leaves, serving, "rotation"), Modules: []string{"*"}, Why: whyDev},

		Rule{Package: "cmd/...", Own: with(leaves, serving,
			"audit", "ca", "ca/backup", "ca/store", "ca/translog", "ingestclient", "ingestclient/spool", "internal/coredump", "internal/devstack", "internal/settings", "internal/tokensocket", "rotation", "rotation/...",
		), Modules: []string{"*"}, Why: "commands wire packages together; test kits and guards are not part of the program"},
	)
}

// with returns a new list; appending to the shared one could overwrite a row.
func with(list []string, more ...string) []string {
	return append(append(make([]string, 0, len(list)+len(more)), list...), more...)
}
