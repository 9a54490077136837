// Package secret keeps secrets out of the text of errors.
package secret

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// FileError returns err, the error of an operation on a file. It does not show a name that may
// be a key, a device token or a payload, passed by mistake in place of a name.
func FileError(err error) error {
	pathErr, ok := errors.AsType[*fs.PathError](err)
	if !ok || !mayBeSecret(pathErr.Path) {
		return err
	}
	name := fmt.Sprintf("(a name of %d characters, not shown since it may be a secret)", len(pathErr.Path))
	return &fs.PathError{Op: pathErr.Op, Path: name, Err: pathErr.Err}
}

// minRun is the length from which on a word may be a secret. The shortest secrets are a P-256
// key in base64 without its PKCS #8 wrapping, with 43 characters, and a device token, with 64.
const minRun = 40

// mayBeSecret reports whether a file name may be something else: it has a character that
// hardly any name has, it is long and has no dot, it has a long word, or it looks like base64.
//
// An absolute path, and a name with the extension of a key or certificate, may be long, and
// have long words that - and _ divide. Base64 has slashes too, and may begin with one. So in
// such a name only looksRandom, and = at the end, tell base64 from a path.
func mayBeSecret(name string) bool {
	if strings.ContainsFunc(name, isOdd) || strings.Contains(name, "-----") {
		return true
	}
	isName := filepath.IsAbs(name) || slices.Contains([]string{".p8", ".pem", ".cer"}, strings.ToLower(filepath.Ext(name)))
	if !isName && len(name) >= minRun && !strings.Contains(name, ".") {
		return true
	}
	for word := range strings.FieldsFuncSeq(name, func(r rune) bool { return !isBase64(r) || isName && (r == '-' || r == '_') }) {
		if len(word) >= minRun {
			return true
		}
	}
	for run := range strings.FieldsFuncSeq(name, func(r rune) bool { return !isBase64(r) && !strings.ContainsRune(amidBase64, r) }) {
		if len(run) >= minRun && (looksRandom(run) || strings.HasSuffix(run, "=")) {
			return true
		}
	}
	return false
}

// amidBase64 has what may be between the digits of base64: the slash, which is a digit itself,
// and what stands for a line break in an environment variable or a form.
const amidBase64 = "/ \\'`,;\u200b"

// looksRandom reports whether a text changes often between lower case, upper case and
// digits: at more than one in six of its characters. A capital letter and the lower case
// that follows it are no change, as in AuthKey. Base64 of random bytes changes at one in two
// characters. Of the long paths of a Debian system, 98 % do so at fewer than one in six.
func looksRandom(text string) bool {
	const other, lower, upper, digit = 0, 1, 2, 3
	changes, last, beforeLast := 0, other, other
	for _, r := range text {
		class := other
		switch {
		case 'a' <= r && r <= 'z':
			class = lower
		case 'A' <= r && r <= 'Z':
			class = upper
		case '0' <= r && r <= '9':
			class = digit
		}
		isWord := last == upper && class == lower && (beforeLast == other || beforeLast == lower)
		if class != last && class != other && last != other && !isWord {
			changes++
		}
		beforeLast, last = last, class
	}
	return changes > len(text)/6
}

func isOdd(r rune) bool {
	return unicode.IsControl(r) || strings.ContainsRune("\"{}<>|*\ufeff", r)
}

// isBase64 reports whether a character is one of base64 or base64url, except for the slash,
// which separates the words of a path.
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
