// Package hpack compresses the header fields of HTTP/2 (HPACK, RFC 7541).
//
// A connection has an Encoder and a Decoder at each end. Both keep a table of
// fields that were sent before, so the blocks of one direction have to be decoded
// in the order in which they were encoded, and none may be left out.
package hpack

import "sync"

// defaultTableSize is the limit of a dynamic table until a size update changes it
// (RFC 9113 section 6.5.2).
const defaultTableSize = 4096

// A field is an entry of a table. Its bytes are never modified.
type field struct{ name, value []byte }

// fieldSize returns what a field counts in the dynamic table (RFC 7541 section
// 4.1) and in a field list (RFC 9113 section 6.5.2).
func fieldSize(name, value int) int { return name + value + 32 }

func (f field) size() int { return fieldSize(len(f.name), len(f.value)) }

// A table is a dynamic table (RFC 7541 section 2.3.2).
type table struct {
	fields []field // oldest first; those before first were evicted
	first  int
	size   int // of the fields together
	limit  int // of size
}

func (t *table) len() int { return len(t.fields) - t.first }

// at returns a field: 0 is the newest, len()-1 the oldest.
func (t *table) at(i int) field { return t.fields[len(t.fields)-1-i] }

// insert adds a field as the newest one. It evicts the oldest ones until there is
// room for it. A field larger than the limit empties the table and is not added
// (RFC 7541 section 4.4).
func (t *table) insert(f field) {
	t.evict(f.size())
	if f.size() > t.limit {
		return
	}
	// This frees at least half of the slice, so fields are rarely moved.
	if len(t.fields) == cap(t.fields) && t.first > len(t.fields)/2 {
		n := copy(t.fields, t.fields[t.first:])
		clear(t.fields[n:])
		t.fields, t.first = t.fields[:n], 0
	}
	t.fields = append(t.fields, f)
	t.size += f.size()
}

func (t *table) setLimit(n int) {
	t.limit = n
	t.evict(0)
}

// evict drops the oldest fields until room bytes are free or the table is empty.
func (t *table) evict(room int) {
	for t.size+room > t.limit && t.len() > 0 {
		t.size -= t.fields[t.first].size()
		t.fields[t.first] = field{} // release the bytes
		t.first++
	}
}

// A staticTable has the fields of RFC 7541 appendix A at the indexes from 1.
type staticTable struct {
	fields [len(staticFields) + 1]field
	// repeated says for each index whether the next field has the same name.
	repeated [len(staticFields) + 1]bool

	// Names are found in a hash table. A name stands for the first field that has
	// it. bucket has the index of one name in each bucket, other the index of another
	// name in the same bucket. 0 means that there is none.
	bucket [nameBuckets]uint8
	other  [len(staticFields) + 1]uint8
}

func (t *staticTable) init() {
	for i, f := range staticFields {
		t.fields[i+1] = field{[]byte(f.name), []byte(f.value)}
		if i > 0 && f.name == staticFields[i-1].name {
			t.repeated[i] = true
			continue
		}
		b := nameBucket(f.name)
		t.other[i+1] = t.bucket[b]
		t.bucket[b] = uint8(i + 1)
	}
}

const nameBuckets = 128

// nameBucket returns the bucket of a name. The factors were found by trial: no
// bucket has more than two static names, only three have two, and none has both a
// static name and one of APNs.
func nameBucket(name string) byte {
	if name == "" {
		return 0
	}
	return (byte(len(name))*3 + name[0]*14 + name[len(name)-1]*90) % nameBuckets
}

// find returns the index of the field with name and value, or else the lowest
// index of the fields with the name, or else 0.
func (t *staticTable) find(name, value string) (index int, exact bool) {
	i := int(t.bucket[nameBucket(name)])
	for i != 0 && string(t.fields[i].name) != name {
		i = int(t.other[i])
	}
	if i == 0 {
		return 0, false
	}
	for j := i; ; j++ {
		if string(t.fields[j].value) == value {
			return j, true
		}
		if !t.repeated[j] {
			return i, false
		}
	}
}

// A constants holds what all encoders and decoders share.
type constants struct {
	huffman huffmanCode
	static  staticTable
}

var shared = sync.OnceValue(func() *constants {
	c := new(constants)
	c.huffman.init()
	c.static.init()
	return c
})

var staticFields = [...]struct{ name, value string }{
	{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"},
	{":path", "/index.html"}, {":scheme", "http"}, {":scheme", "https"}, {":status", "200"},
	{":status", "204"}, {":status", "206"}, {":status", "304"}, {":status", "400"},
	{":status", "404"}, {":status", "500"}, {"accept-charset", ""}, {"accept-encoding", "gzip, deflate"},
	{"accept-language", ""}, {"accept-ranges", ""}, {"accept", ""}, {"access-control-allow-origin", ""},
	{"age", ""}, {"allow", ""}, {"authorization", ""}, {"cache-control", ""},
	{"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""},
	{"date", ""}, {"etag", ""}, {"expect", ""}, {"expires", ""},
	{"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
	{"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""},
	{"link", ""}, {"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""},
	{"proxy-authorization", ""}, {"range", ""}, {"referer", ""}, {"refresh", ""},
	{"retry-after", ""}, {"server", ""}, {"set-cookie", ""}, {"strict-transport-security", ""},
	{"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""},
	{"www-authenticate", ""},
}
