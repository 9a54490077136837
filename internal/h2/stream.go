package h2

import (
	"iter"
	"slices"
)

// A stream is one that was opened, and that the server may still count as open.
type stream struct {
	id        uint32 // 0: this slot of the table is free
	abandoned bool   // its outcome is known, and the server may not know that it was reset
	skipped   uint8  // 1xx responses
	tag       any
	opened    uint64 // how many bytes Flush had taken when it was opened
	end       uint64 // how many bytes have to be written for the request to be whole; 0: DATA is missing
	window    int64  // how many bytes of DATA the server takes
	received  int    // bytes of DATA
	large     int    // Request.ResponseSize, if that is more than streamWindow; otherwise 0
	held      []byte // the part of the body that had no window; nil: none
	response  *Response
}

// A table has the streams of a connection by their number. Its size is a power of
// two, and the slot of a stream follows from its number, so that neither is searched
// for.
type table struct {
	slots  []stream
	used   int // slots
	active int // of these, streams that are not abandoned
}

// minTable is the size of the smallest table.
const minTable = 64

// add opens the stream *next, or a later one, and sets *next to the number after it.
// A number whose slot is taken is left out, which closes that stream (RFC 9113,
// section 5.1.1).
func (t *table) add(next *uint32) *stream {
	if 2*t.used >= len(t.slots) {
		t.grow()
	}
	for t.slot(*next).id != 0 {
		*next += 2
	}
	s := t.slot(*next)
	s.id = *next
	*next += 2
	t.used++
	t.active++
	return s
}

// grow makes a table that is at least half empty. Streams that have slots of their
// own keep them apart in a larger one.
func (t *table) grow() {
	old := t.slots
	t.slots = make([]stream, max(minTable, 2*len(old)))
	for i := range old {
		if old[i].id != 0 {
			*t.slot(old[i].id) = old[i]
		}
	}
}

func (t *table) slot(id uint32) *stream { return &t.slots[int(id>>1)&(len(t.slots)-1)] }

// get returns a stream, or nil if there is none with that number.
func (t *table) get(id uint32) *stream {
	if len(t.slots) == 0 {
		return nil
	}
	if s := t.slot(id); s.id == id && id != 0 {
		return s
	}
	return nil
}

// abandon notes that the outcome of a stream is known.
func (t *table) abandon(s *stream) {
	t.active--
	*s = stream{id: s.id, abandoned: true}
}

// remove frees the slot of a stream.
func (t *table) remove(s *stream) {
	t.used--
	if !s.abandoned {
		t.active--
	}
	*s = stream{}
}

// list adds a stream to a list of streams. The list stays in proportion to the
// table, whatever a server does.
func (t *table) list(ids []uint32, id uint32) []uint32 {
	if len(ids) >= len(t.slots) {
		ids = t.trim(ids)
	}
	return append(ids, id)
}

// trim drops the streams that are gone from a list.
func (t *table) trim(ids []uint32) []uint32 {
	return slices.DeleteFunc(ids, func(id uint32) bool { return t.get(id) == nil })
}

// all returns the streams. They may be removed meanwhile.
func (t *table) all() iter.Seq[*stream] {
	return func(yield func(*stream) bool) {
		for i := range t.slots {
			if t.slots[i].id != 0 && !yield(&t.slots[i]) {
				return
			}
		}
	}
}
