package format

import "github.com/artstore/artstore-pki/audit/internal/pkcs12"

// parsePKCS12 reads a store (RFC 7292 §4). A store that no password opens is one part with
// the reason. Bags have no order, so the parts are loose.
func parsePKCS12(data []byte, with *Context) (out []Part) {
	items, err := pkcs12.Open(data, with.Passwords)
	if err != nil {
		return []Part{{Err: err}}
	}
	for i, item := range items {
		p := Part{
			Block: i + 1, IsKey: item.IsKey, Key: item.Key, Locked: item.Locked, Err: item.Err,
			In: &Location{Loose: true, Locked: item.Opened},
		}
		switch {
		case item.Certificate != nil:
			p.Cert, p.Err = with.Known.Parse(item.Certificate)
		case !item.IsKey && item.Err == nil:
			p.Err = ErrNeither
		}
		out = append(out, p)
	}
	return out
}
