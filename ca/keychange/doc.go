// Package keychange changes the secrets of a state directory: the password that protects its
// keys, and the keys that sign enrolment tokens. It works beside a running authority, which
// goes on with what it has in memory until it reloads.
//
//	done, err := keychange.Password(ctx, keychange.PasswordOptions{Dir: dir, New: password})
//	made, err := keychange.EnrolmentKey(ctx, keychange.EnrolmentOptions{Dir: dir, Keep: keychange.LongestToken})
//
// Invariants:
//
//   - Each state that a crash leaves opens with the old password or with the new one
//     (TestPasswordCrashes in package statedir).
//   - In each state that a crash leaves, a token is signed with the key that pki.yaml names,
//     and the authority accepts it (TestEnrolmentKeyCrashes).
//   - A token of the old key is good until the end of the time that was given, and not after it
//     (TestEnrolmentKeyOverlaps). Without such a time it is refused from the reload on
//     (TestEnrolmentKeyAtOnce).
//   - No enrolment key is in effect whose event is not in the record (TestEnrolmentKeyCrashes).
package keychange
