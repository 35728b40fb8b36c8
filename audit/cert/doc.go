// Package cert has the facts about one certificate, revocation list, document or private
// key, before a check judges it.
//
//	c, err := cert.Parse(der)
//	if c != nil {
//		fmt.Println(c.Name, c.NotAfter, c.Key)
//	}
//
// A [Certificate] that crypto/x509 refuses has its dates and names all the same
// (TestRefused, FuzzRemains), and [Certificate.X509] returns nil. Fields are not changed
// after they were set, so goroutines may share what a [Cache] returns. No private key is
// kept: a [KeyFile] has its place, who may read it, and whether it fits.
package cert
