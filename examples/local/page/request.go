package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/apns"
)

const (
	maxRequest  = 128 << 10        // the size of the largest body of a request, in bytes
	readWithin  = 10 * time.Second // a client that needs longer for the body of a request is cut off
	writeWithin = 10 * time.Second // a client that reads nothing for so long is cut off
)

// readBody reads the body of a request into memory, so that a slow client keeps no handler
// waiting. After an error the connection cannot be used again.
func readBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	// net/http removes the deadline at the end of the body.
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(readWithin))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		w.Header().Set("Connection", "close")
		return fmt.Errorf("the body is invalid, expected at most %d bytes within %v: %w", maxRequest, readWithin, err)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b)) // which a chunked body does not say
	return nil
}

// A steadyWriter writes as long as the client reads. It cuts off a client that reads nothing
// for writeWithin.
type steadyWriter struct{ http.ResponseWriter }

// Unwrap is for http.ResponseController.
func (s steadyWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s steadyWriter) extend() {
	http.NewResponseController(s.ResponseWriter).SetWriteDeadline(time.Now().Add(writeWithin))
}

func (s steadyWriter) WriteHeader(status int) {
	s.extend()
	s.ResponseWriter.WriteHeader(status)
}

func (s steadyWriter) Write(b []byte) (n int, err error) {
	for part := range slices.Chunk(b, 64<<10) {
		s.extend()
		k, err := s.ResponseWriter.Write(part)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// read reads the body of a request, a JSON object, into v. If it cannot, it responds and
// returns false.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(r.Body)
	var object json.RawMessage
	err := d.Decode(&object)
	switch {
	case err != nil:
	case object[0] != '{': // there is no white space before it
		err = fmt.Errorf("it is %s, expected an object", kindOf(object))
	case d.Decode(new(json.RawMessage)) != io.EOF:
		err = errors.New("something follows the JSON value")
	default:
		d = json.NewDecoder(bytes.NewReader(object))
		d.DisallowUnknownFields()
		err = d.Decode(v)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, fmt.Errorf("the body is invalid, expected JSON as in docs/local.md: %w", err))
		return false
	}
	return true
}

// kindOf returns the kind of a JSON value that is no object.
func kindOf(value json.RawMessage) string {
	switch value[0] {
	case 'n':
		return "null"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	}
	return "a number"
}

// readNothing accepts the body of a request that needs none: no body, or an empty object. If
// there is more, it responds and returns false.
func readNothing(w http.ResponseWriter, r *http.Request) bool {
	return r.ContentLength == 0 || read(w, r, new(struct{}))
}

// filterNames are the query parameters of a filter: see newFilter.
var filterNames = []string{"token", "topic", "push_type", "outcome", "protocol", "text", "findings"}

// checkQuery returns an error if a request has query parameters that are not among the names,
// or that have a value without a meaning.
func (p *Page) checkQuery(r *http.Request, names []string) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("the query is invalid, expected parameters as in docs/local.md: %w", err)
	}
	for name, values := range q {
		switch {
		case len(names) == 0:
			return fmt.Errorf("the query has the parameter %q, expected none", name)
		case !slices.Contains(names, name):
			return fmt.Errorf("the query has the parameter %q, expected %s", name, strings.Join(names, ", "))
		case len(values) > 1:
			return fmt.Errorf("%s is given %d times, expected once", name, len(values))
		case name == "findings" && values[0] != "1":
			return fmt.Errorf("findings is %q, expected 1", values[0])
		case name == "protocol" && values[0] != "http2" && values[0] != "binary":
			return fmt.Errorf("protocol is %q, expected http2 or binary", values[0])
		case name == "outcome":
			if err := p.Rules.checkOutcome(values[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// number returns the value of a query parameter that is a number up to most, or byDefault if
// it is not given.
func number(q url.Values, name string, byDefault, most int) (int, error) {
	if !q.Has(name) {
		return byDefault, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%s is %q, expected a number from 0 to %d", name, q.Get(name), most)
	}
	return n, nil
}

// maxToken is how many digits a device token has at most over HTTP/2: see apns.Message.Token.
const maxToken = 4096

// checkToken returns an error if a device token is not 1 to most hexadecimal digits. The
// error does not have the token.
func checkToken(token string, most int) error {
	notHex := func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) }
	switch i := strings.IndexFunc(token, notHex); {
	case token == "":
		return errors.New("token is empty, expected hexadecimal digits")
	case len(token) > most:
		return fmt.Errorf("token has %d characters, expected at most %d hexadecimal digits", len(token), most)
	case i >= 0:
		return fmt.Errorf("character %d of token is invalid, expected a hexadecimal digit", i+1)
	case len(token)%2 != 0:
		return fmt.Errorf("token has %d digits, expected an even number of hexadecimal digits", len(token))
	}
	return nil
}

// checkTime returns an error if a feedback record cannot have the time.
func checkTime(deadAt time.Time) error {
	if _, err := apns.AppendFeedback(nil, apns.Feedback{Token: "00", DeadAt: deadAt}); err != nil {
		return fmt.Errorf("dead_at is %s, expected a time from 1970 to 2106", deadAt.Format(time.RFC3339))
	}
	return nil
}

// A deadAt is the value of a field dead_at, whose errors name it.
type deadAt struct{ time.Time }

// UnmarshalJSON is for json.Unmarshal.
func (t *deadAt) UnmarshalJSON(b []byte) error {
	if t.Time.UnmarshalJSON(b) != nil {
		return fmt.Errorf("dead_at is %.50s, expected a time of RFC 3339 such as \"2026-01-01T00:00:00Z\"", b)
	}
	return nil
}
