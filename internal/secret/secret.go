// Package secret keeps secrets out of the text of errors.
package secret

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"
)

// FileError returns err, the error of an operation on a file. If the file's name may be a
// key, a device token or a payload, which was passed in place of a name, the result does
// not show it.
func FileError(err error) error {
	pathErr, ok := errors.AsType[*fs.PathError](err)
	if !ok || !mayBeSecret(pathErr.Path) {
		return err
	}
	name := fmt.Sprintf("(a name of %d characters, not shown since it may be a secret)", len(pathErr.Path))
	return &fs.PathError{Op: pathErr.Op, Path: name, Err: pathErr.Err}
}

// minRun is the length from which on a word may be a secret. The shortest ones, a P-256 key
// without its wrapping in base64 and a device token, have 43 and 64 characters.
const minRun = 40

// mayBeSecret reports whether a file name may be something else: it has a character that
// hardly any name has, it is long and has no dot, or it has a long word.
func mayBeSecret(name string) bool {
	if strings.ContainsFunc(name, isOdd) || strings.Contains(name, "-----") {
		return true
	}
	if len(name) >= minRun && !strings.Contains(name, ".") {
		return true
	}
	for word := range strings.FieldsFuncSeq(name, func(r rune) bool { return !isBase64(r) }) {
		if len(word) >= minRun {
			return true
		}
	}
	return false
}

func isOdd(r rune) bool {
	return unicode.IsControl(r) || strings.ContainsRune("\"{}<>|*\ufeff", r)
}

// isBase64 reports whether a character is one of base64 or base64url. It leaves out the
// slash, which separates the words of a path.
func isBase64(r rune) bool {
	return '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || strings.ContainsRune("+=_-", r)
}

const (
	// window is how many characters of a secret in a row make it recognizable.
	window = 8
	// minSecret is the length of the shortest secret that is looked for. Shorter ones
	// occur in any text.
	minSecret = 4
)

// Excerpt returns at most the first limit bytes of what a peer has said. An ellipsis takes the
// place of each part of a secret, in upper or lower case.
func Excerpt(said string, limit int, secrets ...string) string {
	said = said[:min(len(said), limit+window)] // a part may begin before the limit
	folded := lower(said)
	hidden := make([]bool, len(said))
	for _, secret := range secrets {
		secret = lower(secret)
		n := min(window, len(secret))
		for i := 0; n >= minSecret && i+n <= len(said); i++ {
			if strings.Contains(secret, folded[i:i+n]) {
				for j := range n {
					hidden[i+j] = true
				}
			}
		}
	}
	var b strings.Builder
	for i := range min(len(said), limit) {
		switch {
		case !hidden[i]:
			b.WriteByte(said[i])
		case i == 0 || !hidden[i-1]:
			b.WriteString("…")
		}
	}
	return b.String()
}

// lower returns a text with its ASCII letters in lower case. Unlike strings.ToLower it keeps
// each byte in its place.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// HideTokens returns what a peer has said, with an ellipsis in place of each device token
// and provider token. It is for what is about no message in particular.
func HideTokens(said string) string {
	var b strings.Builder
	for len(said) > 0 {
		n := strings.IndexFunc(said, func(r rune) bool { return !isBase64(r) && r != '.' })
		if n < 0 {
			n = len(said)
		}
		if word := said[:n]; isToken(word) {
			b.WriteString("…")
		} else {
			b.WriteString(word)
		}
		said = said[n:]
		if n = strings.IndexFunc(said, isBase64); n < 0 {
			n = len(said)
		}
		b.WriteString(said[:n])
		said = said[n:]
	}
	return b.String()
}

// isToken reports whether a word is a JSON Web Token, whose header begins with {", or has
// the digits of a device token.
func isToken(word string) bool {
	if len(word) < 32 {
		return false
	}
	return strings.Contains(word, "eyJ") || !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("0123456789abcdefABCDEF", r)
	})
}
