package apnstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
)

// This is HPACK, the compression of HTTP/2's headers (RFC 7541): all that
// clients may send, and as little as will do to answer them.

// maxHeaderList limits a decoded list of fields, counted as by headerField.size.
// A block of few bytes may name a large field of the table over and over.
const maxHeaderList = 16 << 10

// maxHeaderInt limits a number. It is above all that makes sense in a block, and
// below what overflows an int.
const maxHeaderInt = 1 << 28

type headerField struct{ name, value string }

// size is what a field counts for in the table and in a list.
func (f headerField) size() int { return len(f.name) + len(f.value) + 32 }

// A hpackDecoder decodes the header blocks of one direction of a connection, all
// of them and in their order: each depends on those before it.
type hpackDecoder struct {
	table   []headerField // the dynamic table, oldest first
	size    int           // of the fields in table
	limit   int           // of size, as the peer has it
	maxSize int           // of limit, as we have it
}

// newHPACKDecoder returns a decoder for a peer that has been told, by
// SETTINGS_HEADER_TABLE_SIZE, to use a table of up to maxTableSize bytes. One
// that has been told nothing uses 4096, and no more before it says so.
func newHPACKDecoder(maxTableSize int) *hpackDecoder {
	return &hpackDecoder{limit: min(maxTableSize, 4096), maxSize: maxTableSize}
}

// decode decodes a whole header block, of a HEADERS frame and its CONTINUATIONs.
// After an error, which is a COMPRESSION_ERROR of the connection, the decoder is
// of no more use: its table is not the peer's.
func (d *hpackDecoder) decode(block []byte) ([]headerField, error) {
	var list []headerField
	size := 0
	for r := (hpackReader{rest: block}); len(r.rest) > 0; {
		if r.rest[0]&0xe0 == 0x20 {
			d.readSizeUpdate(&r, len(list) == 0)
		} else {
			f := d.readField(&r)
			if size += f.size(); size > maxHeaderList {
				r.fail("the fields are larger than %d bytes", maxHeaderList)
			}
			list = append(list, f)
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	return list, nil
}

func (d *hpackDecoder) readSizeUpdate(r *hpackReader, first bool) {
	switch n := r.int(5); {
	case !first:
		r.fail("table size update after a field")
	case n > d.maxSize:
		r.fail("table size %d, above %d", n, d.maxSize)
	default:
		d.limit = n
		d.evict()
	}
}

func (d *hpackDecoder) readField(r *hpackReader) headerField {
	switch c := r.rest[0]; {
	case c&0x80 != 0: // a field of the tables
		return d.at(r, r.int(7))
	case c&0x40 != 0: // one to be added to the table
		f := d.readLiteral(r, 6)
		d.table = append(d.table, f)
		d.size += f.size()
		d.evict() // perhaps f itself, which is no error
		return f
	default: // one not to be added, neither here nor, with 0x10, by any proxy
		return d.readLiteral(r, 4)
	}
}

// readLiteral reads a field whose name is an index, of that many bits, or if
// that is 0 a string.
func (d *hpackDecoder) readLiteral(r *hpackReader, bits int) headerField {
	var name string
	if i := r.int(bits); i > 0 {
		name = d.at(r, i).name
	} else {
		name = r.string()
	}
	return headerField{name, r.string()}
}

// at returns the field with the index: from 1 the static table, and after it the
// dynamic one, newest first.
func (d *hpackDecoder) at(r *hpackReader, i int) headerField {
	switch dynamic := i - len(staticTable); {
	case i == 0 || dynamic > len(d.table):
		r.fail("index %d, of %d", i, len(staticTable)+len(d.table))
		return headerField{}
	case dynamic > 0:
		return d.table[len(d.table)-dynamic]
	}
	return staticTable[i-1]
}

// evict drops the oldest fields until the others are within the limit.
func (d *hpackDecoder) evict() {
	n := 0
	for d.size > d.limit {
		d.size -= d.table[n].size()
		n++
	}
	clear(d.table[:n]) // for the collector
	d.table = d.table[n:]
}

// A hpackReader reads what fields are made of. After an error there is nothing
// more to read.
type hpackReader struct {
	rest []byte
	err  error // the first
}

func (r *hpackReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("header block: "+format, args...)
	}
	r.rest = nil
}

// int reads a number that begins in the low bits of a byte and, if they are all
// set, goes on in bytes of 7 bits.
func (r *hpackReader) int(bits int) int {
	if len(r.rest) == 0 {
		r.fail("ends early")
		return 0
	}
	full := 1<<bits - 1
	first := int(r.rest[0]) & full
	r.rest = r.rest[1:]
	if first < full {
		return first
	}
	n, size := binary.Uvarint(r.rest)
	switch {
	case size < 0 || n > maxHeaderInt:
		r.fail("number too large")
		return 0
	case size == 0:
		r.fail("ends early")
		return 0
	}
	r.rest = r.rest[size:]
	return full + int(n)
}

func (r *hpackReader) string() string {
	huffman := len(r.rest) > 0 && r.rest[0]&0x80 != 0
	n := r.int(7)
	if n > len(r.rest) {
		r.fail("ends early")
		return ""
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	if !huffman {
		return string(b)
	}
	s, err := huffmanDecode(b)
	if err != nil {
		r.fail("%w", err)
	}
	return s
}

// huffmanLengths has the number of bits of the code of each byte, and at last of
// the end of a string: 'a' is 5, 'z' is 30. The codes follow from that: they are
// counted up from 0, the shorter before the longer, and those of a length in the
// order of the bytes.
const huffmanLengths = "" +
	"isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxx" + // 0x00
	"bffhibdgffdgdbbbaaabbbbbbbcdkbhf" + // 0x20: space to '?'
	"ibccccccccccccccccccccccdcdioijb" + // 0x40: '@' to '_'
	"kabababbbaccbbbabcbaabccccckgjix" + // 0x60: '`' to DEL
	"prpprrrsrssssststtrstssssqrsrsst" + // 0x80
	"rqprrssqsrrtqrssqqrqsrssprrrsrrs" + // 0xa0
	"vvporsruvvvwwvtuoqvwwvwtqqvvxwww" + // 0xc0
	"ptpqrqqsrruuttvsvwvvwwwwwxwwwwwv" + // 0xe0
	"z"

// huffmanEnd is the place in huffmanLengths of the code that ends a string. It
// must not be sent; its beginning pads the last byte.
const huffmanEnd = 256

// A huffmanTable has what tells the codes of each length apart: a code is
// compared as if it had 30 bits.
type huffmanTable struct {
	symbols [len(huffmanLengths)]uint16 // in the order of their codes
	end     [31]int                     // the first code of 30 bits that is longer
	base    [31]int                     // a code minus this is its place in symbols
}

var huffman = sync.OnceValue(func() *huffmanTable {
	t := new(huffmanTable)
	code, n := 0, 0
	for length := 5; length <= 30; length++ {
		code <<= 1
		t.base[length] = code - n
		for symbol := range t.symbols {
			if int(huffmanLengths[symbol]-'a')+5 == length {
				t.symbols[n] = uint16(symbol)
				n++
				code++
			}
		}
		t.end[length] = code << (30 - length)
	}
	return t
})

func huffmanDecode(b []byte) (string, error) {
	t := huffman()
	decoded := make([]byte, 0, len(b)*8/5)
	var bits uint64 // the next ones, from the top
	have := 0       // of them
	for {
		for ; have <= 56 && len(b) > 0; b = b[1:] {
			bits |= uint64(b[0]) << (56 - have)
			have += 8
		}
		// What is missing is taken for set, as in the padding.
		next := int((bits | ^uint64(0)>>have) >> 34)
		length := 5
		for next >= t.end[length] { // which is above all at 30
			length++
		}
		if length > have {
			if have >= 8 || next != 1<<30-1 {
				return "", errors.New("bad padding of a string")
			}
			return string(decoded), nil
		}
		symbol := t.symbols[next>>(30-length)-t.base[length]]
		if symbol == huffmanEnd {
			return "", errors.New("end of string within a string")
		}
		decoded = append(decoded, byte(symbol))
		bits <<= length
		have -= length
	}
}

// appendField appends a field in the one form that says it all: it uses no table
// and no Huffman code, and so the server has no encoder to keep.
func appendField(b []byte, name, value string) []byte {
	return appendHPACKString(appendHPACKString(append(b, 0), name), value)
}

// appendStatus appends the field ":status".
func appendStatus(b []byte, code int) []byte {
	f := headerField{":status", strconv.Itoa(code)}
	if i := slices.Index(staticTable[:], f); i >= 0 {
		return append(b, 0x80|byte(i+1))
	}
	return appendHPACKString(append(b, 8), f.value) // 8 has the name
}

func appendHPACKString(b []byte, s string) []byte {
	if len(s) < 127 {
		return append(append(b, byte(len(s))), s...)
	}
	b = binary.AppendUvarint(append(b, 127), uint64(len(s)-127))
	return append(b, s...)
}

// staticTable has the fields of the indexes from 1.
var staticTable = [...]headerField{
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
