package apns

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Device tokens in hexadecimal.

// isHex marks a hexadecimal digit in hexDigits.
const isHex = 0x10

// hexDigits has the value of each hexadecimal digit, with isHex set, and 0 for every other
// byte.
var hexDigits = [256]byte{
	'0': isHex, '1': isHex | 1, '2': isHex | 2, '3': isHex | 3, '4': isHex | 4,
	'5': isHex | 5, '6': isHex | 6, '7': isHex | 7, '8': isHex | 8, '9': isHex | 9,
	'a': isHex | 10, 'b': isHex | 11, 'c': isHex | 12, 'd': isHex | 13, 'e': isHex | 14, 'f': isHex | 15,
	'A': isHex | 10, 'B': isHex | 11, 'C': isHex | 12, 'D': isHex | 13, 'E': isHex | 14, 'F': isHex | 15,
}

// appendToken decodes a token of even length, and reports whether all of it is hexadecimal.
// If not, tokenError finds the place: the usual case need not keep track of it.
func appendToken(b []byte, token string) (_ []byte, ok bool) {
	var bad uint64
	for ; len(token) >= 8; token = token[8:] { // eight digits at a time
		x := eightBytes(token)
		bad |= notHexadecimal(x)
		values := x&(0x0f*ones) + (x>>6&ones)*9
		// Combine two values into a byte, then move the four bytes together.
		pairs := (values<<4 | values>>8) & 0x00ff00ff00ff00ff
		pairs = (pairs | pairs>>8) & 0x0000ffff0000ffff
		b = binary.LittleEndian.AppendUint32(b, uint32(pairs|pairs>>16))
	}
	all := byte(isHex)
	for i := 0; i+1 < len(token); i += 2 {
		hi, lo := hexDigits[token[i]], hexDigits[token[i+1]]
		all &= hi & lo
		b = append(b, hi<<4|lo&0x0f)
	}
	return b, all != 0 && bad == 0
}

// isHexadecimal reports whether all of a token is hexadecimal.
func isHexadecimal(token string) bool {
	var bad uint64
	for ; len(token) >= 8; token = token[8:] {
		bad |= notHexadecimal(eightBytes(token))
	}
	all := byte(isHex)
	for i := range len(token) {
		all &= hexDigits[token[i]]
	}
	return all != 0 && bad == 0
}

// ones has a 1 in each of its eight bytes.
const ones = 0x0101010101010101

// eightBytes returns the first eight bytes of a string, the first one lowest.
func eightBytes(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// notHexadecimal sets the top bit of each byte of x that is no hexadecimal digit.
func notHexadecimal(x uint64) uint64 {
	lower := x | 0x20*ones
	ascii := x &^ (0x80 * ones)
	lowerASCII := lower &^ (0x80 * ones)
	// Each sum sets the top bit of a byte if the byte is at least the constant.
	isDigit := (ascii + (0x80-'0')*ones) &^ (ascii + (0x80-'9'-1)*ones)
	isLetter := (lowerASCII + (0x80-'a')*ones) &^ (lowerASCII + (0x80-'f'-1)*ones)
	return (x | ^(isDigit | isLetter)) & (0x80 * ones)
}

func badTokenSize(token string, limit int) bool {
	return len(token) == 0 || len(token)%2 != 0 || len(token) > 2*limit
}

// tokenError says what is wrong with a token that may have at most limit bytes. A character
// that is no digit is named first, whatever the length: a blank, a bracket or a line break is
// also the usual cause of a wrong length.
func tokenError(token string, limit int) error {
	for i, r := range token {
		if r > 0xff || hexDigits[r] == 0 {
			hint := ""
			if i == 0 && (r == '<' || r == '{') {
				hint = " (it looks like the description of an NSData: the app must send the bytes in hexadecimal)"
			}
			return &fieldError{StatusInvalidToken, fmt.Sprintf(
				"token has %q at index %d, expected only hexadecimal digits%s", r, i, hint)}
		}
	}
	switch n := len(token); {
	case n == 0:
		return &fieldError{StatusMissingToken, fmt.Sprintf(
			"token is empty, expected 1 to %d bytes in hexadecimal", limit)}
	case n > 2*limit:
		return &fieldError{StatusInvalidTokenSize, fmt.Sprintf(
			"token has %d characters, expected at most %d hexadecimal digits", n, 2*limit)}
	default:
		return &fieldError{StatusInvalidToken, fmt.Sprintf(
			"token has %d characters, expected an even number of hexadecimal digits", n)}
	}
}

// tokenString returns a decoded token in hexadecimal. It allocates once for a token of at
// most MaxTokenSize bytes.
func tokenString(token []byte) string {
	var b [2 * MaxTokenSize]byte
	return string(hex.AppendEncode(b[:0], token))
}
