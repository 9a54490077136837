package hpack

import (
	"encoding/binary"
	"errors"
	"slices"
)

// huffmanLengths has one letter for each symbol of the Huffman code (RFC 7541
// appendix B): the 256 bytes, then the end of a string. The letter gives the
// number of bits of the symbol's code: 'a' is 5 bits, 'z' is 30.
//
// The lengths determine the codes. Codes count up from 0, the short ones come
// first, and codes of the same length are in the order of their symbols.
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

const (
	endOfString = 256 // the last symbol; its first bits pad a string
	minBits     = 5
	maxBits     = 30

	// lookupBits is how many bits of a string are looked up at once. 12 bits hold two
	// codes of a digit or a letter from a to f, which have 5 or 6 bits. So an apns-id
	// takes 18 steps, not 36. The table has 16 KiB.
	lookupBits = 12
)

var (
	errPadding     = errors.New("the padding of a Huffman string is not up to 7 bits of ones")
	errEndOfString = errors.New("a Huffman string has the end-of-string code in it")
)

// A huffmanCode holds what encodes and decodes strings (RFC 7541 section 5.2).
type huffmanCode struct {
	codes  [256]uint32 // the code of each byte
	pairs  [1 << lookupBits]pair
	ranges [maxBits + 1]codeRange      // by length
	sorted [len(huffmanLengths)]uint16 // the symbols in the order of their codes
}

// A pair holds the one or two symbols that begin at some bits of a string: the
// length of their codes together in bits 0 to 7, the first symbol in bits 8 to 15,
// the second in bits 16 to 23, and their count in bits 24 to 31. It is 0 if the
// first code has more than lookupBits bits.
type pair uint32

func newPair(bits uint, symbol int) pair { return 1<<24 | pair(symbol)<<8 | pair(bits) }

func (p pair) bits() uint      { return uint(p & 0xff) }
func (p pair) symbols() uint16 { return uint16(p >> 8) }
func (p pair) count() int      { return int(p >> 24) }

// then returns the pair of the symbols of p and of q, each of which has one.
func (p pair) then(q pair) pair { return p + q&^0xff00 + q&0xff00<<8 }

// A codeRange describes the codes of one length.
type codeRange struct {
	end  uint32 // the first longer code, shifted left to maxBits bits
	base uint32 // a code minus base is the code's place in sorted
}

// bitsOf returns the length of the code of a symbol.
func bitsOf(symbol int) uint { return uint(huffmanLengths[symbol]-'a') + minBits }

func (h *huffmanCode) init() {
	var code, n uint32
	for bits := uint(minBits); bits <= maxBits; bits++ {
		code <<= 1
		h.ranges[bits].base = code - n
		for symbol := range huffmanLengths {
			if bitsOf(symbol) != bits {
				continue
			}
			if symbol != endOfString {
				h.codes[symbol] = code
			}
			h.sorted[n] = uint16(symbol)
			n++
			code++
		}
		h.ranges[bits].end = code << (maxBits - bits)
	}

	// One symbol for each entry first, then a second one where it fits. Both may be
	// missing, that is 0.
	var single [1 << lookupBits]pair
	for symbol, code := range h.codes {
		if bits := bitsOf(symbol); bits <= lookupBits {
			for i := range uint32(1) << (lookupBits - bits) {
				single[code<<(lookupBits-bits)|i] = newPair(bits, symbol)
			}
		}
	}
	for i, first := range single {
		second := single[i<<first.bits()&(1<<lookupBits-1)]
		if first.bits()+second.bits() <= lookupBits {
			first = first.then(second)
		}
		h.pairs[i] = first
	}
}

// appendDecoded appends the string that src encodes. It reports bad padding and an
// end of string in it (RFC 7541 section 5.2).
func (h *huffmanCode) appendDecoded(dst, src []byte) ([]byte, error) {
	// There are at most 8 symbols in 5 bytes, and the last step may write a byte more.
	n := len(dst)
	dst = slices.Grow(dst, len(src)*8/minBits+1)
	dst = dst[:cap(dst)]

	end := len(src)
	var short [8]byte
	if end < len(short) {
		copy(short[:], src)
		src = short[:]
	}
	var bits uint64 // the next bits of src, from the top
	var have uint   // how many of them count; some below may be set already
	for i := 0; ; {
		if have < maxBits+2 && i < end {
			// Read 8 bytes, or what is left of the last 8.
			var next uint64
			if last := len(src) - 8; i <= last {
				next = binary.BigEndian.Uint64(src[i:])
			} else {
				next = binary.BigEndian.Uint64(src[last:]) << (8 * (i - last) & 63)
			}
			bits |= next >> have
			k := min(int(64-have)/8, end-i) // whole bytes
			i += k
			have += 8 * uint(k)
		}
		p := h.pairs[bits>>(64-lookupBits)]
		if p.bits()-1 < have { // so p is not 0 either
			binary.LittleEndian.PutUint16(dst[n:], p.symbols())
			n += p.count()
			bits <<= p.bits() & 63
			have -= p.bits()
			continue
		}

		// A long code, or the end of src. Bits beyond it count as ones, like padding.
		code := uint32((bits | ^uint64(0)>>have) >> (64 - maxBits))
		if code == 1<<maxBits-1 && have < 8 {
			return dst[:n], nil
		}
		length := uint(minBits)
		for code >= h.ranges[length].end { // which no code is at maxBits
			length++
		}
		if length > have {
			return dst[:n], errPadding
		}
		symbol := h.sorted[code>>(maxBits-length)-h.ranges[length].base]
		if symbol == endOfString {
			return dst[:n], errEndOfString
		}
		dst[n] = byte(symbol)
		n++
		bits <<= length
		have -= length
	}
}

// encodedLen returns the number of bytes that appendEncoded appends.
func encodedLen(s string) int {
	bits := uint(0)
	for i := range len(s) {
		bits += bitsOf(int(s[i]))
	}
	return int(bits+7) / 8
}

// appendEncoded appends the Huffman code of s, padded with ones.
func (h *huffmanCode) appendEncoded(dst []byte, s string) []byte {
	var bits uint64 // those not yet appended, at the bottom
	var have uint   // how many
	for i := range len(s) {
		length := bitsOf(int(s[i]))
		bits = bits<<length | uint64(h.codes[s[i]])
		if have += length; have >= 32 {
			have -= 32
			dst = binary.BigEndian.AppendUint32(dst, uint32(bits>>have))
		}
	}
	// bits has older ones above these. The conversions to byte drop them.
	for ; have >= 8; have -= 8 {
		dst = append(dst, byte(bits>>(have-8)))
	}
	if have > 0 {
		dst = append(dst, byte(bits<<(8-have))|0xff>>have)
	}
	return dst
}
