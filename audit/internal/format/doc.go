// Package format reads the files in which certificates are kept: PEM, DER, PKCS #7
// and #12, stores of Java, manifests of Kubernetes, and what else may hold one.
//
// One damaged certificate does not hide the others: each part of a file is a [Part],
// with what is wrong with it. What a file may cost is bounded by its size, before it
// is decoded.
package format
