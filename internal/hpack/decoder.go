package hpack

import (
	"errors"
	"fmt"
)

// maxKeptScratch is the largest scratch buffer, in bytes, that a Decoder keeps
// from one block to the next.
const maxKeptScratch = 16 << 10

// ErrListSize is returned by Decoder.Decode if the fields of a block are larger
// than the limit. Test for it with errors.Is.
var ErrListSize = errors.New("header block: the fields are larger than the limit")

// A Decoder decodes the header blocks that one end of a connection sends: all of
// them, in order. It is not safe for concurrent use.
type Decoder struct {
	shared       *constants
	table        table
	maxTableSize int
	maxListSize  int
	scratch      []byte // the Huffman strings of one field
}

// NewDecoder returns a Decoder. maxTableSize is the SETTINGS_HEADER_TABLE_SIZE
// that was announced to the peer, in bytes: 4096 if none was. maxListSize limits
// the decoded size of one block, in bytes: each field counts the length of its
// name and its value plus 32.
//
// Whatever maxTableSize is, the table's limit is 4,096 bytes until the peer sends a
// size update, since it may send blocks before it learns of the setting.
func NewDecoder(maxTableSize, maxListSize int) *Decoder {
	return &Decoder{
		shared:       shared(),
		table:        table{limit: defaultTableSize},
		maxTableSize: maxTableSize,
		maxListSize:  maxListSize,
	}
}

// Decode decodes a whole block (the fragments of a HEADERS frame and its
// CONTINUATION frames, joined) and calls emit for each field, in order. name and
// value are valid only until emit returns, and emit must not modify them.
//
// If the fields are larger than the limit, Decode does not emit the field that
// exceeds it nor any after that. It still decodes the block to its end and
// updates the table, then returns ErrListSize. The Decoder can go on with the
// next block.
//
// Any other error says what is wrong with the block. It is a connection error of
// type COMPRESSION_ERROR (RFC 9113 section 4.3), and the Decoder must not be used
// again. The fields before the error have been emitted.
//
// Decode allocates memory only for what enters the table, and for a Huffman string
// that is longer than those of earlier blocks.
func (d *Decoder) Decode(block []byte, emit func(name, value []byte)) error {
	r := reader{rest: block}
	first := true // no field was read yet
	size := 0
	for len(r.rest) > 0 {
		if r.rest[0]&0xe0 == 0x20 {
			d.readSizeUpdate(&r, first)
		} else {
			first = false
			f := d.readField(&r)
			if r.err == nil && size <= d.maxListSize {
				if size += f.size(); size <= d.maxListSize {
					emit(f.name, f.value)
				}
			}
		}
	}
	if cap(d.scratch) > maxKeptScratch {
		d.scratch = nil
	}
	if r.err == nil && size > d.maxListSize {
		return fmt.Errorf("%w of %d bytes", ErrListSize, d.maxListSize)
	}
	return r.err
}

// readSizeUpdate reads a dynamic table size update (RFC 7541 section 6.3). Several
// may begin a block, but none may follow a field (section 4.2).
func (d *Decoder) readSizeUpdate(r *reader, first bool) {
	n := r.int(5)
	switch {
	case r.err != nil:
	case !first:
		r.fail("a table size update after a field, expected only at the start")
	case n > d.maxTableSize:
		r.fail("the table size update is %d, expected at most %d", n, d.maxTableSize)
	default:
		d.table.setLimit(n)
	}
}

// readField reads a field in any of its representations (RFC 7541 sections 6.1
// and 6.2).
func (d *Decoder) readField(r *reader) field {
	switch c := r.rest[0]; {
	case c&0x80 != 0: // indexed
		return d.at(r, r.int(7))
	case c&0x40 != 0: // literal with incremental indexing
		f, known := d.readLiteral(r, 6)
		if r.err != nil {
			return field{}
		}
		d.insert(f, known)
		return f
	default: // literal without indexing, or with 0x10 never indexed
		f, _ := d.readLiteral(r, 4)
		return f
	}
}

// readLiteral reads a literal, whose first number has a prefix of that many bits. The
// number is the index of the name, or 0 if the name is a string. known reports
// whether the name comes from a table.
func (d *Decoder) readLiteral(r *reader, prefix uint) (f field, known bool) {
	d.scratch = d.scratch[:0]
	if i := r.int(prefix); i != 0 {
		f.name, known = d.at(r, i).name, true
	} else {
		f.name = d.readString(r)
	}
	f.value = d.readString(r)
	return f, known
}

// insert adds a copy of f to the table, so that the table keeps no block alive. The
// name is not copied if known, since it is a table's copy already. Otherwise a block
// could demand a copy of 4,000 bytes with each two of its own.
func (d *Decoder) insert(f field, known bool) {
	if f.size() <= d.table.limit {
		if !known {
			f.name = append([]byte(nil), f.name...)
		}
		f.value = append([]byte(nil), f.value...)
	}
	d.table.insert(f)
}

// at returns the field with an index (RFC 7541 section 2.3.3): the static table
// has the indexes from 1, then comes the dynamic table, newest first.
func (d *Decoder) at(r *reader, i int) field {
	switch dynamic := i - len(d.shared.static.fields); {
	case r.err != nil:
		return field{}
	case i == 0 || dynamic >= d.table.len():
		r.fail("the index is %d, expected 1 to %d", i, len(staticFields)+d.table.len())
		return field{}
	case dynamic >= 0:
		return d.table.at(dynamic)
	}
	return d.shared.static.fields[i]
}

// readString reads a string (RFC 7541 section 5.2). It is part of the block or, if
// it was Huffman-coded, of scratch.
func (d *Decoder) readString(r *reader) []byte {
	huffman := len(r.rest) > 0 && r.rest[0]&0x80 != 0
	n := r.int(7)
	if r.err != nil {
		return nil
	}
	if n > len(r.rest) {
		r.fail("a string has %d bytes, expected at most %d, the rest of the block", n, len(r.rest))
		return nil
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	if !huffman {
		return s
	}
	start := len(d.scratch)
	var err error
	if d.scratch, err = d.shared.huffman.appendDecoded(d.scratch, s); err != nil {
		r.fail("%w", err)
		return nil
	}
	return d.scratch[start:]
}

// A reader reads the parts of a block. After an error there is nothing more to
// read.
type reader struct {
	rest []byte
	err  error // the first one
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("header block: "+format, args...)
	}
	r.rest = nil
}

// int reads a number with a prefix of that many bits (RFC 7541 section 5.1). At
// most 4 bytes may follow the prefix, so the result is less than 1<<28 + 127.
func (r *reader) int(prefix uint) int {
	if len(r.rest) == 0 {
		r.fail("ends in the middle of a field")
		return 0
	}
	full := 1<<prefix - 1
	n := int(r.rest[0]) & full
	r.rest = r.rest[1:]
	if n < full {
		return n
	}
	for i := range 4 {
		if i >= len(r.rest) {
			r.fail("ends in the middle of a number")
			return 0
		}
		c := r.rest[i]
		n += int(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.rest = r.rest[i+1:]
			return n
		}
	}
	r.fail("a number has more than 4 bytes after its prefix")
	return 0
}
