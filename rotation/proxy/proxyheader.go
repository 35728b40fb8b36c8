package proxy

import (
	"crypto/tls"
	"fmt"
	"net"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// typeName is the TLV with the name of the allow list by which a peer was admitted, a DNS
// name or a SPIFFE ID. It is of the range that the PROXY protocol leaves to applications.
const typeName = proxyproto.PP2_TYPE_MIN_CUSTOM

// proxyHeader returns the header of the PROXY protocol, version 2, for a connection whose peer
// was admitted by name. It has the addresses of the connection, and as TLVs the name that the
// peer asked for, the version of TLS and the cipher suite, the common name of the certificate
// and the name.
func proxyHeader(from, to net.Addr, cs tls.ConnectionState, name string) ([]byte, error) {
	secure := tlvparse.PP2SSL{ // Verify 0: the certificate was verified
		Client: tlvparse.PP2_BITFIELD_CLIENT_SSL | tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN | tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS,
		TLV: []proxyproto.TLV{
			{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte(versionName(cs.Version))},
			{Type: proxyproto.PP2_SUBTYPE_SSL_CIPHER, Value: []byte(tls.CipherSuiteName(cs.CipherSuite))},
		},
	}
	if cs.DidResume { // the certificate was shown in an earlier connection of the session
		secure.Client &^= tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN
	}
	if cn := cs.PeerCertificates[0].Subject.CommonName; cn != "" {
		secure.TLV = append(secure.TLV, proxyproto.TLV{Type: proxyproto.PP2_SUBTYPE_SSL_CN, Value: []byte(cn)})
	}
	tls, err := secure.Marshal()
	if err != nil {
		return nil, fmt.Errorf("making the PROXY header: %w", err)
	}
	tlvs := []proxyproto.TLV{tls, {Type: typeName, Value: []byte(name)}}
	if cs.ServerName != "" {
		tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(cs.ServerName)})
	}
	h := proxyproto.HeaderProxyFromAddrs(2, from, to)
	h.Command = proxyproto.PROXY // also where the addresses are of a kind that the header cannot hold
	if err := h.SetTLVs(tlvs); err != nil {
		return nil, fmt.Errorf("making the PROXY header: %w", err)
	}
	return format(h)
}

// localHeader returns the header of a connection that the proxy makes for itself, such as
// that of a health check: a service answers it without counting or logging a client.
func localHeader() ([]byte, error) {
	return format(&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC})
}

func format(h *proxyproto.Header) ([]byte, error) {
	b, err := h.Format()
	if err != nil {
		return nil, fmt.Errorf("making the PROXY header: %w", err)
	}
	return b, nil
}

// versionName is how the PROXY protocol names a version of TLS: TLSv1.3.
func versionName(version uint16) string {
	return map[uint16]string{tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}[version]
}
