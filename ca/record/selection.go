package record

import "time"

// MaxPage is how many rows a page has at most.
const MaxPage = 1000

// Query selects certificates; the zero value selects all. Filters combine with "and".
type Query struct {
	Service       string    // exact
	Name          string    // exact name in the certificate: DNS, IP or URI
	Issuer        string    // subject key id of the intermediate, hex
	State         string    // StateValid, StateExpired or StateRevoked; "" is any
	ExpiresBefore time.Time // exclusive; zero is any
	SoonestFirst  bool      // order by expiry upwards; the default is downwards
	Limit         int       // rows per page; 0 means 100, more than 1000 means 1000
	Cursor        string    // what the page before returned
	Now           time.Time // the moment that state is judged at; zero means now
}

// Search selects certificates by the beginning of a name.
type Search struct {
	Prefix string // of a name: DNS, IP or URI, in lower case
	Limit  int    // as in [Query]
	Cursor string // what the page before returned
}

// Selection names a set of certificates to revoke: those of a service or those of a
// lineage, one of the two.
type Selection struct {
	Service string
	Lineage string // serial of the first certificate, decimal
	// Since leaves out what expired before it. An expired certificate can be
	// renewed for a while, so that a set which spared it would not hold.
	Since time.Time
}
