package h2

import "fmt"

// An Outcome says what became of a request.
type Outcome struct {
	Tag      any
	Stream   uint32
	Kind     Kind
	Response *Response // of Answered; of Malformed: what there was of it, or nil
	Early    bool      // of Answered: before the whole request was written, or the server says that it has not processed the request
	Code     Code      // of Reset
	Text     string    // of Malformed: what is wrong; of Unprocessed: why, empty if a GOAWAY says so
}

// A Kind is what an outcome comes to.
type Kind int

const (
	// Answered is a request that has a response.
	Answered Kind = iota
	// Unprocessed is a request that the server has not processed: it says so, by
	// GOAWAY or REFUSED_STREAM (RFC 9113, section 8.7), or it cannot have the whole
	// request.
	Unprocessed
	// Reset is a request whose stream the server has reset, with another code.
	Reset
	// Malformed is a request with a response that breaks the rules.
	Malformed
	// Lost is a request that was sent, and of which nothing more will be known:
	// the connection ended, or the request was cancelled.
	Lost
)

// String returns, for example, "unprocessed".
func (k Kind) String() string {
	names := [...]string{Answered: "answered", Unprocessed: "unprocessed", Reset: "reset", Malformed: "malformed", Lost: "lost"}
	if k >= 0 && int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// outcomeLocked returns what can be said of a request without any further word from
// the server. Together with the server's GOAWAY and RST_STREAM, this is where outcomes
// are decided.
func (c *Conn) outcomeLocked(s *stream) Outcome {
	o := Outcome{Tag: s.tag, Stream: s.id, Kind: Lost}
	switch {
	case s.response != nil:
		// The server has decided, although its response is not whole.
		o.Kind, o.Response, o.Early = Answered, s.response, !c.isSentLocked(s)
	case !c.isSentLocked(s):
		o.Kind, o.Text = Unprocessed, "not all of it was written"
	}
	return o
}

// isSentLocked reports whether the server may have the whole request.
func (c *Conn) isSentLocked(s *stream) bool {
	return s.end != 0 && (c.broken == nil || s.end <= c.written)
}

// A Response is what the server answers. It is valid until the next Read, unless it
// comes from Cancel or Rest.
type Response struct {
	Status int
	Body   []byte // the first 4 KiB of it, or all if the request has a ResponseSize
	Whole  bool   // the server has ended it; otherwise there may have been more

	length int64 // content-length; -1: none
	size   int64 // of the body
	list   int   // the size of the fields, as SETTINGS_MAX_HEADER_LIST_SIZE counts it
	fields []byte
	ends   []fieldEnd
}

// A fieldEnd says where the name and the value of a field end in Response.fields.
type fieldEnd struct{ name, value int }

// Get returns the value of the first field with the name, in lower case, or nil.
func (r *Response) Get(name string) []byte {
	start := 0
	for _, e := range r.ends {
		if string(r.fields[start:e.name]) == name {
			return r.fields[e.name:e.value]
		}
		start = e.value
	}
	return nil
}

// add keeps a field, unless there are too many.
func (r *Response) add(name, value []byte) {
	if r.list += len(name) + len(value) + 32; r.list > maxList {
		return
	}
	r.fields = append(r.fields, name...)
	r.fields = append(r.fields, value...)
	n := len(r.fields)
	r.ends = append(r.ends, fieldEnd{n - len(value), n})
}

// addBody keeps the beginning of the body, up to limit bytes.
func (r *Response) addBody(b []byte, limit int) {
	r.size += int64(len(b))
	r.Body = append(r.Body, b[:min(len(b), limit-len(r.Body))]...)
}

// clear makes the response ready to be used for another request.
func (r *Response) clear() {
	*r = Response{Body: r.Body[:0], fields: r.fields[:0], ends: r.ends[:0]}
}
