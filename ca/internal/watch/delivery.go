package watch

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of a delivery.
const (
	maxSerial  = 64  // digits; one of 20 octets (RFC 5280 §4.1.2.2) has 49
	maxAddress = 300 // bytes; the longest name has 253
	maxServers = 1000
)

// Delivery is what the sender of a request says of a certificate that is served.
type Delivery struct {
	Serial  string        // decimal
	Address string        // of the first server
	Servers int           // how many serve it
	For     time.Duration // how long ago that was proved
}

// Parse reads the delivery in the parameters of GET /watch. It returns false if there is
// none, or if it is not well formed: the report is optional, so it is no reason to refuse the
// request.
func (d *Delivery) Parse(v url.Values) bool {
	*d = Delivery{}
	d.Serial, d.Address = v.Get("served"), v.Get("served_at")
	if d.Serial == "" || len(d.Serial) > maxSerial || strings.Trim(d.Serial, "0123456789") != "" {
		return false
	}
	if d.Address == "" || len(d.Address) > maxAddress || strings.ContainsFunc(d.Address, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return false
	}
	servers, err := strconv.ParseUint(v.Get("servers"), 10, 31)
	if err != nil || servers == 0 || servers > maxServers {
		return false
	}
	seconds, err := strconv.ParseUint(v.Get("served_for"), 10, 31)
	if err != nil {
		return false
	}
	d.Servers, d.For = int(servers), time.Duration(seconds)*time.Second
	return true
}
