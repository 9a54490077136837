package apns

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// A pemKind says what a PEM block is, in the words of its BEGIN line. It is empty if neither
// that line nor the content says it.
type pemKind string

const (
	kindPKCS8       pemKind = "PRIVATE KEY"
	kindEncrypted   pemKind = "ENCRYPTED PRIVATE KEY"
	kindSEC1        pemKind = "EC PRIVATE KEY"
	kindPKCS1       pemKind = "RSA PRIVATE KEY"
	kindOpenSSH     pemKind = "OPENSSH PRIVATE KEY"
	kindPublic      pemKind = "PUBLIC KEY"
	kindCertificate pemKind = "CERTIFICATE"
	kindRequest     pemKind = "CERTIFICATE REQUEST"
	kindCurve       pemKind = "EC PARAMETERS"
	kindPKCS12      pemKind = "PKCS12" // never in PEM
)

// pemKinds has the kinds in the order in which their parsers are tried.
var pemKinds = []struct {
	kind        pemKind
	description string
	isKey       bool                          // it has a private key
	parse       func(der []byte) (any, error) // nil if its content is not looked at
}{
	{kindPKCS8, "a private key in PKCS #8", true, x509.ParsePKCS8PrivateKey},
	{kindSEC1, "an EC private key in SEC 1", true, func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) }},
	{kindPKCS1, "an RSA private key in PKCS #1", true, func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) }},
	{kindCertificate, "a certificate", false, func(der []byte) (any, error) { return x509.ParseCertificate(der) }},
	{kindPublic, "a public key", false, x509.ParsePKIXPublicKey},
	{kindRequest, "a certificate request", false, func(der []byte) (any, error) { return x509.ParseCertificateRequest(der) }},
	{kindEncrypted, "an encrypted private key", true, parseEncrypted},
	{kindPKCS12, "a PKCS #12 file (.p12)", false, parsePKCS12},
	{kindOpenSSH, "an OpenSSH private key", true, nil},
	{kindCurve, "the name of a curve", false, nil},
}

// parseEncrypted parses an EncryptedPrivateKeyInfo (RFC 5958, section 3).
func parseEncrypted(der []byte) (any, error) {
	var encrypted struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	_, err := asn1.Unmarshal(der, &encrypted)
	return encrypted, err
}

// parsePKCS12 parses the beginning of a PFX (RFC 7292, section 4).
func parsePKCS12(der []byte) (any, error) {
	var pfx struct {
		Version int
		Content struct{ Type asn1.ObjectIdentifier }
	}
	_, err := asn1.Unmarshal(der, &pfx)
	if err == nil && pfx.Version != 3 {
		err = fmt.Errorf("version is %d, expected 3", pfx.Version)
	}
	return pfx, err
}

// String describes what is in the block.
func (k pemKind) String() string {
	for _, row := range pemKinds {
		if row.kind == k {
			return row.description
		}
	}
	return "of an unknown type"
}

// isKey reports whether a block has a private key.
func (k pemKind) isKey() bool {
	for _, row := range pemKinds {
		if row.kind == k {
			return row.isKey
		}
	}
	return false
}

// kindOfLabel returns the kind that a BEGIN or END line names. It ignores white space, and so
// accepts a line without any.
func kindOfLabel(label string) pemKind {
	label = strings.Join(strings.Fields(label), "")
	for _, row := range pemKinds {
		if label == strings.ReplaceAll(string(row.kind), " ", "") {
			return row.kind
		}
	}
	return ""
}

// parseDER returns the kind of what is in DER, and its value. It returns "" and nil if that is
// of no kind.
func parseDER(der []byte) (pemKind, any) {
	for _, row := range pemKinds {
		if row.parse == nil {
			continue
		}
		if value, err := row.parse(der); err == nil {
			return row.kind, value
		}
	}
	return "", nil
}

// A pemBlock is a key or a certificate in a text.
type pemBlock struct {
	kind  pemKind
	der   []byte
	value any   // the parsed content, which the kind's line may contradict; nil if it cannot be parsed
	err   error // why the content is not whole: begins with "has" or "is"
}

// readPEM returns the keys and certificates in a file. Unlike encoding/pem it accepts a text
// that an environment variable, a form or an editor has changed: with other line breaks or
// none, \n as two characters, quotes, indentation, a byte order mark, in UTF-16. The BEGIN
// or END line of a block may be missing. It also accepts DER, base64 without any line around
// it, and base64 of the whole file.
func readPEM(data []byte) []pemBlock {
	if size := derSize(data); size > 0 && (size == len(data) || data[1] >= 0x80) {
		return []pemBlock{newPEMBlock("", data, nil)}
	}
	text := pemText(data)
	blocks, word := splitPEM(text)
	if len(blocks) > 0 {
		return blocks
	}
	decoded, err := decodeBase64(word)
	if len(decoded) == 0 && err == nil {
		return nil
	}
	if blocks, _ := splitPEM(pemText(decoded)); len(blocks) > 0 {
		return blocks
	}
	if block := newPEMBlock("", decoded, err); err == nil && block.kind != "" || derSize(decoded) > 0 {
		return []pemBlock{block}
	}
	return nil
}

// pemText returns the text of a file, with a line break for \n, \r and \t as two characters.
func pemText(data []byte) string {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return strings.NewReplacer(`\n`, "\n", `\r`, "\n", `\t`, "\n").Replace(string(data))
	}
	var units []uint16
	for i := 0; i+1 < len(data); i += 2 {
		units = append(units, order.Uint16(data[i:]))
	}
	return pemText([]byte(string(utf16.Decode(units))))
}

// splitPEM returns the blocks of a text. If there is none, it returns the longest piece of
// the text between dashes.
func splitPEM(text string) (blocks []pemBlock, longest string) {
	var last string // the last piece that is no BEGIN or END line
	var kind pemKind
	begun, isOpen := false, false
	add := func(kind pemKind, body string) {
		if strings.Contains(body, "Proc-Type:") { // RFC 1421, as in old files of OpenSSL
			blocks = append(blocks, pemBlock{kind: kindEncrypted})
			return
		}
		der, err := decodeBase64(body)
		blocks = append(blocks, newPEMBlock(kind, der, err))
	}
	for piece := range strings.SplitSeq(text, "--") {
		piece = strings.TrimSpace(strings.Trim(piece, "-"))
		switch {
		case piece == "":
		case strings.HasPrefix(piece, "BEGIN"):
			begun, isOpen, kind, last = true, true, kindOfLabel(piece[len("BEGIN"):]), ""
		case strings.HasPrefix(piece, "END"):
			if !begun && last != "" {
				add(kindOfLabel(piece[len("END"):]), last)
			}
			begun, isOpen, last = false, false, ""
		default:
			if isOpen {
				add(kind, piece)
			}
			isOpen, last = false, piece
			if len(piece) > len(longest) {
				longest = piece
			}
		}
	}
	return blocks, longest
}

// decodeBase64 decodes base64 in spite of white space and quotes, with or without padding.
func decodeBase64(text string) ([]byte, error) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || strings.ContainsRune("\"'`\\,;\ufeff\u200b\x00", r) {
			return -1
		}
		return r
	}, text)
	text = strings.TrimRight(text, "=")
	der, err := base64.RawStdEncoding.DecodeString(text)
	if err == nil {
		return der, nil
	}
	for _, r := range text {
		if r > unicode.MaxASCII || !strings.ContainsRune("+/", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return der, fmt.Errorf("has %q in its text, which base64 does not have", r)
		}
	}
	return der, fmt.Errorf("is cut short: it has %d digits of base64, which encode no whole number of bytes", len(text))
}

// newPEMBlock returns a block with the content der. The kind is that of its BEGIN or END
// line, or empty. The content decides if it is empty, and if it is PRIVATE KEY, a line that
// people put around other keys too. The argument err says why der is only a part of the
// content.
func newPEMBlock(kind pemKind, der []byte, err error) pemBlock {
	found, value := parseDER(der)
	if found != "" && (kind == "" || kind == kindPKCS8) {
		kind = found
	}
	size := derSize(der)
	switch {
	case err != nil:
	case kind == kindOpenSSH: // this is not DER
	case len(der) == 0:
		err = errors.New("is empty")
	case size > len(der):
		err = fmt.Errorf("is cut short: it has %d of %d bytes", len(der), size)
	case size > 0 && size < len(der):
		err = fmt.Errorf("has %d bytes after its end", len(der)-size)
	case kind == "":
		err = errors.New("is neither a key nor a certificate")
	}
	return pemBlock{kind, der, value, err}
}

// derSize returns the size in bytes of a SEQUENCE in DER, as its first bytes state it. It
// returns 0 if b is none. All keys and certificates are one.
func derSize(b []byte) int {
	if len(b) < 4 || b[0] != 0x30 {
		return 0
	}
	switch n := int(b[1]); {
	case n < 0x80:
		return 2 + n
	case n == 0x81:
		return 3 + int(b[2])
	case n == 0x82:
		return 4 + int(binary.BigEndian.Uint16(b[2:]))
	}
	return 0
}

// describeKey says what a private key is.
func describeKey(key any) string {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return "an ECDSA key on the curve " + key.Params().Name
	case *rsa.PrivateKey:
		return "an RSA key"
	case ed25519.PrivateKey:
		return "an Ed25519 key"
	case *ecdh.PrivateKey:
		return "an X25519 key"
	}
	return fmt.Sprintf("a %T", key)
}
