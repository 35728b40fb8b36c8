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
	// maxReferenced bounds the size of such a file, in bytes.
	maxReferenced = 256 << 10
)

var (
	errManyReferences = fmt.Errorf("it refers to more than %d files; the rest was not read", maxReferences)
	errReferenced     = fmt.Errorf("it is larger than %d KiB, too much for a file that another one refers to", maxReferenced>>10)
)

// eachSubject yields the parts of a file as subjects, with their chain, bundle, key and
// lists. The objects of a file are judged separately.
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
			continue // this key is judged with a certificate of the file
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
				s.Order = nil // the row of the first certificate says that this one is superfluous
			}
		}
		s.Oddity = odd.of(&p, &s)
		yield(s)
	}
}

// objects splits a file into its objects, because certificates and keys of one object do not
// belong to another. It returns nil for a file without objects.
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
		// Without its object, the part is not split again.
		in := *p.In
		in.Object, p.In = "", &in
		o.parts = append(o.parts, p)
	}
	return out
}

// bundle returns the roots that judge an object: those that were given, else those in an
// entry with the name of a trust bundle, else those of the directory.
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

// severalIn returns a function that reports whether the entry of a part has more parts.
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

// follow replaces references to other files by the parts of these files. The parts keep the
// object and the entry of the reference.
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

// referenced reads a file that another one refers to. References in it are not followed.
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
