package source

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

const (
	// maxReferences bounds the files that one file refers to.
	maxReferences = 256
	// maxReferenced is the size of one, in bytes.
	maxReferenced = 256 << 10
)

var (
	errManyReferences = fmt.Errorf("it refers to more than %d files; the rest was not read", maxReferences)
	errReferenced     = fmt.Errorf("it is larger than %d KiB, too much for a file that another one refers to", maxReferenced>>10)
)

// eachSubject makes subjects of the parts of a file, object by object.
func (w *walk) eachSubject(f *file, at dirContext, yield func(audit.Subject)) {
	if objects := f.objects(); objects != nil {
		for _, o := range objects {
			w.eachSubject(o, dirContext{bundle: o.bundle(w.bundle, at.bundle), lists: at.lists}, yield)
		}
		return
	}
	chain, keys, several, odd := f.authorities(), keyCandidatesOf(f, at.keys), f.severalIn(), f.odd()
	orders, lists := map[string][]*cert.Certificate{}, slices.Concat(at.lists, f.revocations())
	for _, p := range f.parts {
		w.Wake(&p)
		s := audit.Subject{Place: f.path + p.In.Suffix(), Err: p.Err, Cert: p.Cert, Document: p.Document}
		if several(p) {
			s.Block = p.Block
		}
		if s.Cert != nil {
			s.Lists = lists
		}
		switch {
		case p.Document != nil && p.Document.What == cert.RevocationList:
			s.Chain, s.Bundle = chain, at.bundle
			if p.Document.List != nil {
				s.Document = p.Document.WithoutEntries()
			}
		case p.Err != nil:
		case p.Document != nil:
			s.Chain, s.Bundle = chain, at.bundle
		case p.Cert == nil && p.IsKey && f.holds() == 0:
			s.Key = f.keyFile(&p)
			s.Key.Public, s.Key.Named = spki(p.Key), f.named
			s.Document = keyDocument(s.Key, p.Key)
		case p.Cert == nil:
			continue // a key is judged with its certificate
		case p.Cert.IsCA:
			if s.Key = keys.of(p.Cert); s.Leaf() || s.Key != nil {
				s.Chain, s.Bundle = chain, at.bundle
			}
		default:
			entry := p.In.Suffix()
			if _, known := orders[entry]; !known {
				orders[entry] = w.order(f, entry, &keys)
			}
			s.Chain, s.Bundle, s.Key, s.Order = chain, at.bundle, keys.of(p.Cert), orders[entry]
			if keys.whole && p.Cert.Fingerprint != keys.first.Fingerprint {
				s.Order = nil // it is surplus, which the row of the first says
			}
		}
		s.Oddity = odd.of(&p, &s)
		yield(s)
	}
}

// objects takes a file with several objects apart: the certificates of one are no
// chain of another, and its keys do not belong there. nil for any other file.
func (f *file) objects() (out []*file) {
	at := map[string]*file{}
	for _, p := range f.parts {
		if p.In == nil || p.In.Object == "" {
			return nil
		}
		o := at[p.In.Object]
		if o == nil {
			o = &file{path: f.path + "#" + p.In.Object, Access: f.Access, named: f.named}
			at[p.In.Object] = o
			out = append(out, o)
		}
		// What was taken apart is not taken apart again.
		in := *p.In
		in.Object, p.In = "", &in
		o.parts = append(o.parts, p)
	}
	return out
}

// bundle are the roots in an object under the names that they have in directories,
// unless some were given; without any, those of the directory.
func (f *file) bundle(given, nearest []*cert.Certificate) []*cert.Certificate {
	if given != nil {
		return given
	}
	for _, name := range bundleNames {
		var own []*cert.Certificate
		for _, p := range f.parts {
			if p.In.Entry == name && p.Cert != nil && p.Cert.MayBeTrusted() {
				own = append(own, p.Cert)
			}
		}
		if own != nil {
			return own
		}
	}
	return nearest
}

// severalIn tells of a part whether there are others in the same entry of the file.
func (f *file) severalIn() func(format.Part) bool {
	if !slices.ContainsFunc(f.parts, func(p format.Part) bool { return p.In != nil && p.In.Entry != "" }) {
		return func(format.Part) bool { return len(f.parts) > 1 }
	}
	n := map[string]int{}
	for _, p := range f.parts {
		n[p.In.Suffix()]++
	}
	return func(p format.Part) bool { return n[p.In.Suffix()] > 1 }
}

// follow puts what is in the files that f refers to in the place of the references.
func (o *fileReader) follow(f *file) {
	if f == nil || !slices.ContainsFunc(f.parts, func(p format.Part) bool { return p.In != nil && p.In.File != "" }) {
		return
	}
	var parts []format.Part
	known := map[string][]format.Part{}
	for _, p := range f.parts {
		if p.In == nil || p.In.File == "" {
			parts = append(parts, p)
			continue
		}
		path := p.In.File
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(f.path), path)
		}
		there, read := known[path]
		switch {
		case !read && len(known) == maxReferences:
			p.Err = errManyReferences
			f.parts = append(parts, p)
			return
		case !read:
			there = o.referenced(path)
			known[path] = there
		}
		for _, q := range there {
			in := *p.In
			if in.File = ""; q.In != nil {
				in.Access = q.In.Access
			}
			q.In = &in
			parts = append(parts, q)
		}
	}
	f.parts = parts
}

// referenced reads a file that another one names. What that refers to in turn is not read.
func (o *fileReader) referenced(path string) []format.Part {
	f := o.readAlone(maxReferenced, path, true)
	if f.deferred != nil {
		return []format.Part{{Err: errReferenced}}
	}
	for _, p := range f.parts {
		if p.In != nil && p.In.Object != "" {
			return []format.Part{{Err: format.ErrNeither}}
		}
	}
	if len(f.parts) == 0 {
		return []format.Part{{Err: format.ErrNoCert}}
	}
	for i := range f.parts {
		f.parts[i].In = &format.Location{Access: &f.Access}
	}
	return f.parts
}
