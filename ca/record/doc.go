// Package record has the words of the authority's record: certificates, revocations
// and events as callers see them, and the queries that select them. It knows no
// database, so that commands, reports and clients can import it; ca/store keeps what
// it describes.
//
//	c := record.NewCertificate(chain, time.Now())
//	c.Service, c.Kind = "ingester", kinds.Issued
//	page, next, err := s.List(ctx, record.Query{Service: "ingester", State: record.StateValid})
//
// Serials are decimal text, as the database has them; certs.ParseSerial reads the other
// forms. Times are in UTC and exact to the millisecond.
package record
