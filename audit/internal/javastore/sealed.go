package javastore

import "golang.org/x/crypto/cryptobyte"

// Tags of the Java Object Serialization Specification §6.4.2.
const (
	tagNull      = 0x70
	tagReference = 0x71
	tagClass     = 0x72
	tagObject    = 0x73
	tagString    = 0x74
	tagArray     = 0x75
	tagEnd       = 0x78

	streamHead   = 0xaced0005 // magic and version
	serializable = 2          // flags of a class without a form of its own

	// maxClasses bounds the classes of an object and those above it; SealedObject has two.
	maxClasses = 4
)

// sealed skips the serialized SealedObject of a secret key. It has no length, so its fields
// are counted. They are arrays of bytes and strings.
func (r *reader) sealed() bool {
	var head uint32
	fields := 0
	if !r.ReadUint32(&head) || head != streamHead || !r.tag(tagObject) || !r.class(&fields, maxClasses) {
		return false
	}
	for range fields {
		if !r.value() {
			return false
		}
	}
	return true
}

func (r *reader) tag(want uint8) bool {
	var got uint8
	return r.ReadUint8(&got) && got == want
}

// class skips the description of a class and of its superclasses, and returns the number of
// their fields.
func (r *reader) class(fields *int, depth int) bool {
	var tag, flags uint8
	if depth == 0 || !r.ReadUint8(&tag) {
		return false
	}
	switch tag {
	case tagNull:
		return true
	case tagReference:
		return r.Skip(4)
	case tagClass:
	default:
		return false
	}
	var name cryptobyte.String
	var n uint16
	if !r.ReadUint16LengthPrefixed(&name) || !r.Skip(8) || !r.ReadUint8(&flags) || flags != serializable || !r.ReadUint16(&n) {
		return false
	}
	*fields += int(n)
	for range n {
		var kind uint8
		if !r.ReadUint8(&kind) || kind != '[' && kind != 'L' || !r.ReadUint16LengthPrefixed(&name) || !r.text() {
			return false
		}
	}
	return r.tag(tagEnd) && r.class(fields, depth-1)
}

// value skips an array of bytes, a string, or a reference to one.
func (r *reader) value() bool {
	if len(r.String) == 0 || r.String[0] != tagArray {
		return r.text()
	}
	var content []byte
	fields := 0
	return r.Skip(1) && r.class(&fields, 2) && fields == 0 && r.long(&content)
}

// text skips a string, or a reference to one.
func (r *reader) text() bool {
	var tag uint8
	var content cryptobyte.String
	if !r.ReadUint8(&tag) {
		return false
	}
	switch tag {
	case tagNull:
		return true
	case tagReference:
		return r.Skip(4)
	}
	return tag == tagString && r.ReadUint16LengthPrefixed(&content)
}
