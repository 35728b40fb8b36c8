// Package agent keeps certificates for programs that are not ours: it gets and renews them by
// rotation/enroll, writes them in the forms that the programs read, runs what makes a program read
// its files again, and asks the program which certificate it serves now.
//
//	cfg, err := agent.ReadConfig("agent.yaml", served.Check)
//	a, err := agent.New(cfg, agent.Options{Served: ask})
//	err = a.Run(ctx)
//
// Each identity has two goroutines of its own and shares nothing with the others. One is the source
// of a rotation.Identity, which renews. The other one, deliver, learns of each set of files that
// has come into effect, runs the hook, asks the servers, and repeats that until they serve the
// set or a newer one is there.
//
// The identities that rules name are served by package workload too, if the configuration says so.
//
// Invariants:
//
//   - All files of a generation come into effect by one rename (TestKeepsAndDelivers), and a process
//     that is killed at any moment leaves the old set or the new one, with its hook owed
//     (TestAgentCrashes in cmd/artstore-pki).
//   - What was proved at the servers is in the record of the authority, with the certificate that
//     they serve (TestAuthorityLearnsOfDelivery).
//   - The hook runs after each change of the files until it has succeeded, also over a restart, and
//     not for a set that is delivered already (TestKeepsAndDelivers, TestHookIsRetried).
//   - A set that its servers do not serve after two runs of the hook is an alarm in log, status and
//     metrics (TestAlarm). The next success ends it.
//   - Owner, group, mode and ACL of a file stay as they are, or as the configuration has them
//     (TestAccessIsKept). Only files are given away, and what is in the place of one is left
//     alone (TestForeignFilesKeepTheirAccess).
//   - A failure of one identity does not delay another one, and leaves its old files in place
//     (TestFaultsStayApart).
//   - While the authority is away, an identity sends at most one request in 30 s, and after that all
//     heal (TestAuthorityAwayForADay).
//   - The configuration decides nothing by a misspelt key: each fault has its line
//     (TestConfigFaults, FuzzConfig).
//   - Another configuration touches no identity that is the same in both, and one that cannot be taken
//     touches none (TestReload). One directory has one writer at any time
//     (TestReloadSwapsDirectories).
//   - Who is in no rule gets nothing from the Workload API. A reload takes away what new rules do not
//     give, and cuts no stream of others (TestWorkloadReload).
//   - The control socket answers root and the user of the agent (TestControl), and neither status nor
//     log has a key, a token or a password (TestNothingSecretIsSaid).
package agent
