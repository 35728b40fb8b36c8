package watch

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Query is what a request says of its sender. The zero value says nothing.
type Query struct {
	Trust   string        // digest of the bundle in effect; empty: not known
	Lists   string        // tag of the lists in effect
	Renewal Obeyed        // the last order that was obeyed
	Wait    time.Duration // the longest time to wait; 0 means not at all
}

// ParseQuery reads the parameters of GET /watch. An absent wait is [MaxWait], and so is a
// longer one. Its errors name the parameter and quote nothing.
func ParseQuery(v url.Values) (q Query, err error) {
	q = Query{Trust: v.Get("trust"), Lists: v.Get("lists"), Wait: MaxWait}
	if q.Trust != "" && !isDigest(q.Trust, 64) {
		return q, errors.New("trust: want the digest of the bundle, 64 characters of lower-case hex")
	}
	if len(q.Lists) > 64 {
		return q, errors.New("lists: want the ETag of the lists, without its quotes")
	}
	if text := v.Get("renewal"); text != "" {
		if q.Renewal.ID, err = strconv.ParseInt(text, 10, 64); err != nil || q.Renewal.ID < 0 {
			return q, errors.New("renewal: want the id of an order")
		}
	}
	if q.Renewal.Nonce = v.Get("nonce"); len(q.Renewal.Nonce) > 64 {
		return q, errors.New("nonce: want that of an order")
	}
	if text := v.Get("wait"); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return q, fmt.Errorf("wait: want a number of seconds, %d at most", MaxWait/time.Second)
		}
		q.Wait = min(time.Duration(seconds)*time.Second, MaxWait)
	}
	return q, nil
}

func isDigest(s string, length int) bool {
	if len(s) != length {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
