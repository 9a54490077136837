package apns

import (
	"bytes"
	"sort"
	"strings"
	"unicode"
)

// ellipsis ends a body that was shortened.
const ellipsis = "…"

// encodeShortened is encode with as much of the alert's body as the limit allows, and an
// ellipsis. The argument shortest is the payload with the ellipsis alone, which the limit
// allows.
func (p *Payload) encodeShortened(limit int, shortest []byte) ([]byte, error) {
	start := shorten(p.Alert.Body, limit-len(shortest))
	if start == "" {
		return shortest, nil
	}
	return p.encodeWithBody(start + ellipsis)
}

// encodeWithBody is encode with another body of the alert.
func (p *Payload) encodeWithBody(body string) ([]byte, error) {
	with := *p
	with.Alert.Body = body
	return with.encode()
}

// shorten returns the longest part of s, from its start to the end of a character, that has at
// most size bytes in JSON.
func shorten(s string, size int) string {
	ends := characterEnds(s, size)
	n := sort.Search(len(ends), func(i int) bool { return sizeInJSON(s[:ends[i]]) > size })
	if n == 0 {
		return ""
	}
	return s[:ends[n-1]]
}

// sizeInJSON returns the size of a string in JSON, without the quotes.
func sizeInJSON(s string) int {
	var b bytes.Buffer
	writeString(&b, s)
	return b.Len() - len(`""`)
}

// characterEnds returns the indices in s, up to a limit, at which a character ends as a reader
// sees it. The rules are those for grapheme clusters in Unicode Standard Annex #29. Package
// unicode does not have all their tables. Where it has none, two characters may be taken for
// one: no character ends after a zero width joiner.
func characterEnds(s string, limit int) (ends []int) {
	var before rune
	flags := 0 // regional indicators in a row, up to before
	for i, r := range s {
		if i > limit {
			return ends
		}
		if i > 0 && !isJoined(before, r, flags) {
			ends = append(ends, i)
		}
		if isRegionalIndicator(r) {
			flags++
		} else {
			flags = 0
		}
		before = r
	}
	if s != "" && len(s) <= limit {
		ends = append(ends, len(s))
	}
	return ends
}

const zeroWidthJoiner = '\u200d'

// isJoined reports whether two code points in a row belong to one character. flags is the
// number of regional indicators in a row before r: two of them make a flag.
func isJoined(before, r rune, flags int) bool {
	switch {
	case before == '\r' && r == '\n':
		return true
	case unicode.IsControl(before), unicode.IsControl(r):
		return false
	// Combining marks, variation selectors, joiners, tags (as in the flag of Scotland).
	case unicode.In(r, unicode.M, unicode.Other_Grapheme_Extend), r == zeroWidthJoiner, isSkinTone(r):
		return true
	case before == zeroWidthJoiner, unicode.Is(unicode.Prepended_Concatenation_Mark, before):
		return true
	case isRegionalIndicator(r):
		return flags%2 == 1
	// Hangul: a vowel or a final consonant continues a syllable, an initial one begins it.
	case r >= 0x1160 && r <= 0x11ff, r >= 0xd7b0 && r <= 0xd7ff:
		return unicode.Is(unicode.Hangul, before)
	case before >= 0x1100 && before <= 0x115f, before >= 0xa960 && before <= 0xa97f:
		return unicode.Is(unicode.Hangul, r)
	// Indic consonants that a virama joins.
	case strings.ContainsRune("\u094d\u09cd\u0acd\u0b4d\u0c4d\u0d4d", before):
		return unicode.IsLetter(r)
	}
	return false
}

// isSkinTone reports whether r changes the colour of the emoji before it.
func isSkinTone(r rune) bool { return r >= 0x1f3fb && r <= 0x1f3ff }

func isRegionalIndicator(r rune) bool { return unicode.Is(unicode.Regional_Indicator, r) }
