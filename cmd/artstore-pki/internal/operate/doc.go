// Package operate has the commands that change what an authority rests on while it runs, root and
// intermediate, and the command that makes the fleet renew, renewal. They work on the state directory, beside a running authority, or over mutual
// TLS with the certificate of a service that pki.yaml lists as an operator.
//
//	operate.Root(u), operate.Intermediate(u), operate.Renewal(u)
//
// The authority decides ([control]): a command that it refuses prints who would be cut off, and
// ends in status 3.
//
// Invariants:
//
//   - A refused step changes nothing, prints the names and is exit status 3, in the directory
//     and over the network (TestScript/root, TestScript/root-remote in cmd/artstore-pki).
//   - renewal force can be interrupted and run again: it goes on with the order that is open
//     (TestScript/renewal).
//   - root rotate can be interrupted and run again (TestScript/root).
package operate

import "github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"

// exitRefused is the status of a step that the authority has refused, and of an order that not
// all have followed.
const exitRefused = ui.ExitRefused

// statuses ends the help of commands that change something.
const statuses = `   0    done
   1    it failed; the error says what and where
   2    the command line is wrong
   3    refused, or not all have followed; the names are printed
   130  interrupted
`
