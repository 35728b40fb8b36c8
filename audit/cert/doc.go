// Package cert is what is known of one certificate, revocation list, document or
// private key, before anybody judges it.
//
//	c, err := cert.Parse(der)
//	if c != nil {
//		fmt.Println(c.Name, c.NotAfter, c.Key)
//	}
//
// A [Certificate] that crypto/x509 refuses has its dates and names all the same, and
// [Certificate.X509] is nil. Fields are set once and only read afterwards, so that
// several goroutines may share what a [Cache] returns. No private key is kept: a
// [KeyFile] says where one lies, who may read it, and whether it fits.
package cert
