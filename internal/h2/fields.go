package h2

import (
	"fmt"
	"strconv"
)

// A Section says which fields a header block has.
type Section int

// The sections.
const (
	RequestHeader Section = iota
	ResponseHeader
	Trailer // of a request or a response
)

// A Validator checks the fields of one section. Reset it, add the fields in their
// order, and then ask Malformed. Its rules are those of RFC 9113, sections 8.1.1,
// 8.2 and 8.3. It allocates only when it finds a fault.
type Validator struct {
	section Section
	pseudo  [numPseudo]bool // those that have come
	regular bool            // a field that is not a pseudo-header field has come
	status  int
	length  int64 // content-length; -1: none
	fault   string
}

const (
	pseudoMethod = iota
	pseudoScheme
	pseudoPath
	pseudoAuthority
	pseudoStatus
	numPseudo
)

var pseudoNames = [numPseudo]string{":method", ":scheme", ":path", ":authority", ":status"}

// Reset makes v ready for a section.
func (v *Validator) Reset(s Section) { *v = Validator{section: s, length: -1} }

// Add checks one field.
func (v *Validator) Add(name, value []byte) {
	switch {
	case v.fault != "":
	case len(name) > 0 && name[0] == ':':
		v.addPseudo(name, value)
	default:
		v.addRegular(name, value)
	}
}

func (v *Validator) addPseudo(name, value []byte) {
	i := pseudoIndex(name)
	switch {
	case i < 0, v.section == Trailer, (v.section == ResponseHeader) != (i == pseudoStatus):
		v.fault = fmt.Sprintf("unexpected pseudo-header field %.40q", name)
	case v.regular:
		v.fault = fmt.Sprintf("%s after a regular field", name)
	case v.pseudo[i]:
		v.fault = fmt.Sprintf("%s twice", name)
	case !validValue(value):
		v.fault = fmt.Sprintf("%s has the value %.40q", name, value)
	case len(value) == 0 && i != pseudoAuthority:
		v.fault = fmt.Sprintf("%s is empty", name)
	case i == pseudoStatus:
		v.setStatus(value)
	}
	if i >= 0 {
		v.pseudo[i] = true
	}
}

func pseudoIndex(name []byte) int {
	for i := range pseudoNames {
		if pseudoNames[i] == string(name) {
			return i
		}
	}
	return -1
}

// setStatus takes the status of a response: three digits, and not 101, which HTTP/2
// does not have (section 8.6).
func (v *Validator) setStatus(value []byte) {
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' || len(value) != 3 {
			n = 0
			break
		}
		n = 10*n + int(c-'0')
	}
	if n < 100 || n == 101 {
		v.fault = fmt.Sprintf(":status is %.40q, expected three digits, and not 101", value)
		return
	}
	v.status = n
}

func (v *Validator) addRegular(name, value []byte) {
	v.regular = true
	switch {
	case !validName(name):
		v.fault = fmt.Sprintf("field name %.40q", name)
		return
	case !validValue(value):
		v.fault = fmt.Sprintf("%.40s has the value %.40q", name, value)
		return
	}
	switch string(name) {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		v.fault = fmt.Sprintf("%s, which is a field of HTTP/1", name)
	case "te":
		if string(value) != "trailers" {
			v.fault = fmt.Sprintf("te is %.40q, expected trailers", value)
		}
	case "content-length":
		n, err := strconv.ParseUint(string(value), 10, 63)
		if err != nil || v.length >= 0 && v.length != int64(n) {
			v.fault = fmt.Sprintf("content-length is %.40q", value)
			return
		}
		v.length = int64(n)
	}
}

// Malformed says what is wrong with the section, or returns "".
func (v *Validator) Malformed() string {
	if v.fault != "" {
		return v.fault
	}
	for i, name := range pseudoNames {
		required := v.section == RequestHeader && i <= pseudoPath || v.section == ResponseHeader && i == pseudoStatus
		if required && !v.pseudo[i] {
			return "no " + name
		}
	}
	return ""
}

// Status is the status of a response.
func (v *Validator) Status() int { return v.status }

// ContentLength is how many bytes the body has to have, or -1 if the fields do not
// say.
func (v *Validator) ContentLength() int64 { return v.length }

// validName reports whether a name has only what may be sent: a token (RFC 9110,
// section 5.6.2) without capital letters.
func validName(name []byte) bool {
	for _, c := range name {
		if !nameBytes[c] {
			return false
		}
	}
	return len(name) > 0
}

var nameBytes = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

// validValue reports whether a value has only what may be sent: no NUL, CR or LF,
// and no blank at either end (section 8.2.1).
func validValue(value []byte) bool {
	for _, c := range value {
		if c == 0 || c == '\r' || c == '\n' {
			return false
		}
	}
	n := len(value)
	return n == 0 || !isBlank(value[0]) && !isBlank(value[n-1])
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
