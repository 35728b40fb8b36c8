// Package settings reads the settings of programs that upload, from their environment, a
// file and flags, and turns them into valid values once.
//
//	collected := settings.Collect(settings.Input{Flags: given, Environ: os.Environ(), File: path})
//	for _, l := range collected.Lines() { … } // config show: text and origin of each, secrets redacted
//	s, err := collected.Parse()               // everything that is wrong, joined
//
// [Table] is the only place that knows a setting: its names, its type, its
// default and its sentence of documentation. Flags, the environment, the file,
// `config show` and the table in docs/auth-api.md are all made of it or compared
// with it.
//
// # Names
//
// ADMIN_MODULE__BASE_URL is how ArtStore's documentation writes a variable,
// SERVICE_ACCOUNT_ADMIN_MODULE_URL how its ingester reads one; both are known.
// Where a value may be in a file of its own, as secrets do, the name with _FILE
// behind it holds the path. In a YAML file the part before the double underscore
// is the section: admin_module: {base_url: …}.
//
// # Precedence
//
// A flag goes before the environment, that before the file, that before the
// default. An empty variable is not set. Two names of one setting with different values in
// the same place are an error, because no rule could say which of them was meant.
//
// # Strictness
//
// A key of the file that is not in the table is an error with its line, and so
// is a variable under one of our double-underscore prefixes. Single-underscore
// prefixes are shared, with Kubernetes' service links for one, so there only a
// near miss of a known name is an error.
package settings
