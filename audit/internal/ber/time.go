package ber

import (
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// timeLayouts are the forms of times that certificates have: the one that RFC 5280 §4.1.2.5
// allows for each type, and others without seconds or without a zone.
var timeLayouts = map[der.Tag][]string{
	der.UTCTime:         {"060102150405Z0700", "0601021504Z0700", "060102150405"},
	der.GeneralizedTime: {"20060102150405Z0700", "200601021504Z0700", "20060102150405"},
}

// ReadTime reads a UTCTime or a GeneralizedTime, and returns it in UTC. It returns false if
// the next value is neither, or has an unknown form.
func ReadTime(s *cryptobyte.String) (time.Time, bool) {
	var text cryptobyte.String
	var tag der.Tag
	if !s.ReadAnyASN1(&text, &tag) {
		return time.Time{}, false
	}
	for _, layout := range timeLayouts[tag] {
		t, err := time.Parse(layout, string(text))
		if err != nil {
			continue
		}
		if tag == der.UTCTime && t.Year() >= 2050 {
			t = t.AddDate(-100, 0, 0) // RFC 5280 §4.1.2.5.1; Go's years turn at 69
		}
		return t.UTC(), true
	}
	return time.Time{}, false
}
