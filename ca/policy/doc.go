// Package policy says who may obtain which certificate: pki.yaml in its outer form, as
// people write it, and in its valid form, which is what an authority works with.
//
//	cfg, err := policy.Load(dir)    // [Config]: an error lists all faults of pki.yaml
//	rules, err := cfg.Parse()       // [Rules]: the same, by service and provisioner
//	err = rules.Services["ingester"].Allows(names, key)
//
// [Rules] exist only if the whole configuration is valid, so a caller that has them checks
// nothing again. A refusal is a denial that names its rule and the key in pki.yaml.
//
// The package reads pki.yaml and nothing else: no certificate, no key and no record.
//
// Invariants, whose tests are in ca, where an authority runs by the rules:
//
//   - A name that no profile lists and no pattern covers is refused, whatever a token says
//     (TestPatternsDecide).
//   - An unknown key, a value of another type and a setting that does not belong to its
//     provisioner are errors: a rule that is ignored would not hold (TestConfigTypes,
//     TestProvisioners).
//   - An error about pki.yaml is one line, and no input makes the parser panic (FuzzConfig).
//   - A reload with a pki.yaml that is not valid keeps the rules from before
//     (TestReloadKeepsTheOldConfiguration).
package policy
