// Package policy says who may obtain which certificate: pki.yaml in its outer form, as
// people write it, and in its valid form, which is what an authority works with.
//
//	cfg, err := policy.Load(dir)    // [Config]: refuses what is not valid, and says everything that is wrong
//	rules, err := cfg.Parse()       // [Rules]: what [Load] has checked, by service and provisioner
//	err = rules.Services["ingester"].Allows(names, key)
//
// [Rules] exist only if the whole configuration is valid, and nothing that uses them
// checks it again. A refusal is an error that names the rule.
//
// The package reads pki.yaml and nothing else: no certificate, no key and no record.
package policy
