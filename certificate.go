package apns

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"example.com/apns/internal/secret"
)

// LoadCertificate reads a provider certificate and its private key from two files, or from
// one if keyFile is empty. The result is for [Config].TLS:
//
//	cert, err := apns.LoadCertificate("cert.pem", "key.pem", "com.example.app")
//	...
//	config := &apns.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}
//
// See [ParseCertificate] for what the files may have and for the errors.
func LoadCertificate(certFile, keyFile, bundleID string) (tls.Certificate, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("apns: reading the certificate: %w%s", secret.FileError(err), insteadOfName(certFile, "ParseCertificate"))
	}
	var keyPEM []byte
	names := certFile
	if keyFile != "" && keyFile != certFile {
		if keyPEM, err = os.ReadFile(keyFile); err != nil {
			return tls.Certificate{}, fmt.Errorf("apns: reading the certificate's key: %w%s", secret.FileError(err), insteadOfName(keyFile, "ParseCertificate"))
		}
		if names += " with " + keyFile; len(keyPEM) == 0 {
			return tls.Certificate{}, fmt.Errorf("apns: %s: the certificate's key is empty, expected a private key", names)
		}
	}
	cert, err := parseCertificate(certPEM, keyPEM, bundleID)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("apns: %s: %w", names, err)
	}
	return cert, nil
}

// ParseCertificate decodes a provider certificate and its private key. If keyPEM is empty,
// the key is in certPEM too. The result has its Leaf.
//
// The certificate is in PEM, or in DER as Apple's site gives it. It may come with
// intermediate certificates, in any order. The key is in PKCS #8, PKCS #1 or SEC 1, and not
// encrypted. The text may be changed as that of [ParseAuthKey], for example without line
// breaks.
//
// The error says what is wrong if the key is another certificate's, or if
// [CertificateInfo.Check] fails for the bundle ID and the present time. It never shows a
// part of the key. To use a certificate in spite of that, call [tls.X509KeyPair].
//
// A .p12 file, as Keychain Access exports it, is read by the module
// software.sslmate.com/src/go-pkcs12:
//
//	key, leaf, _, err := pkcs12.DecodeChain(p12, password)
//	...
//	err = apns.InspectCertificate(leaf).Check("com.example.app", time.Now())
//	...
//	cert := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
func ParseCertificate(certPEM, keyPEM []byte, bundleID string) (tls.Certificate, error) {
	cert, err := parseCertificate(certPEM, keyPEM, bundleID)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("apns: %w", err)
	}
	return cert, nil
}

// A CertificateInfo is what a provider certificate says about itself.
type CertificateInfo struct {
	// Topics are the topics for which the certificate may send. The first one is the
	// default topic: the bundle ID of its app, or the identifier of a Wallet pass or of a
	// website. Empty means that it names none, which is so only if it is not Apple's.
	Topics []string

	// Sandbox and Production are the environments. If both are false, the certificate
	// names none.
	Sandbox, Production bool

	// NotBefore and NotAfter are the first and the last moment at which the certificate is
	// valid.
	NotBefore, NotAfter time.Time

	unfit string // why it is not for push notifications
}

// Object identifiers in provider certificates. What the extensions mean is in "Sending
// notification requests to APNs" (topics) and in Apple's "Certification Practice Statement,
// Worldwide Developer Relations" (environments, Wallet passes, websites).
var (
	oidUserID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1} // RFC 4519, section 2.39

	oidApple      = asn1.ObjectIdentifier{1, 2, 840, 113635}
	oidPush       = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3}
	oidSandbox    = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	oidProduction = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
	oidVoIPTopics = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 4}
	oidTopics     = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 6}
	oidPass       = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 1, 16}
	oidWebsite    = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 1, 17}
)

// InspectCertificate returns what a provider certificate says about itself. It does not
// judge it: see [CertificateInfo.Check].
func InspectCertificate(cert *x509.Certificate) CertificateInfo {
	if cert == nil {
		return CertificateInfo{unfit: "there is none"}
	}
	info := CertificateInfo{NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}
	isApple, isPush := slices.Contains(cert.Issuer.Organization, "Apple Inc."), false
	var listed []string
	for _, e := range cert.Extensions {
		isApple = isApple || hasPrefix(e.Id, oidApple)
		isPush = isPush || hasPrefix(e.Id, oidPush) || e.Id.Equal(oidPass) || e.Id.Equal(oidWebsite)
		switch {
		case e.Id.Equal(oidSandbox):
			info.Sandbox = true
		case e.Id.Equal(oidProduction):
			info.Production = true
		case e.Id.Equal(oidTopics), e.Id.Equal(oidVoIPTopics):
			listed = append(listed, topicsIn(e.Value)...)
		}
	}
	// In Apple's other certificates the user ID is something else.
	if isPush || !isApple {
		for _, name := range cert.Subject.Names {
			if topic, ok := name.Value.(string); ok && name.Type.Equal(oidUserID) {
				info.addTopic(topic)
			}
		}
	}
	for _, topic := range listed {
		info.addTopic(topic)
	}
	switch {
	case isApple && !isPush:
		info.unfit = fmt.Sprintf("it is Apple's %q", cert.Subject.CommonName)
	case len(cert.ExtKeyUsage) > 0 && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny):
		info.unfit = "its extended key usage is not client authentication"
	}
	return info
}

// Check returns an error if a certificate is not for push notifications, if it is not valid
// at the time, or if it is not for the app with the bundle ID. If the bundle ID is empty, it
// may be for any app. The bundle ID of a certificate for a Wallet pass or a website is the
// identifier of that pass or website. A certificate that is not Apple's, such as one for a
// private gateway, need not name an app.
func (i CertificateInfo) Check(bundleID string, at time.Time) error {
	if err := i.check(bundleID, at); err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	return nil
}

func (i CertificateInfo) check(bundleID string, at time.Time) error {
	switch {
	case i.unfit != "":
		return fmt.Errorf("certificate is not for push notifications, expected an Apple Push Notification service SSL certificate: %s", i.unfit)
	case at.Before(i.NotBefore):
		return fmt.Errorf("certificate is valid from %s on, expected one that is valid now: the clock says %s", i.NotBefore.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	case at.After(i.NotAfter):
		return fmt.Errorf("certificate is expired since %s, expected one that is valid now: the clock says %s", i.NotAfter.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	case bundleID != "" && len(i.Topics) == 0:
		return fmt.Errorf("certificate names no app, expected %s", bundleID)
	case bundleID != "" && !slices.Contains(i.Topics, bundleID):
		return fmt.Errorf("certificate is for %s, expected %s", strings.Join(i.Topics, ", "), bundleID)
	}
	return nil
}

// addTopic adds a topic that is not there yet.
func (i *CertificateInfo) addTopic(topic string) {
	if topic != "" && isHeaderValue(topic) && !slices.Contains(i.Topics, topic) {
		i.Topics = append(i.Topics, topic)
	}
}

func hasPrefix(id, prefix asn1.ObjectIdentifier) bool {
	return len(id) >= len(prefix) && id[:len(prefix)].Equal(prefix)
}

// topicsIn returns the topics in an extension: the strings of a SEQUENCE, in which each is
// followed by a SEQUENCE with its kinds, such as app or voip. A malformed one has none.
func topicsIn(value []byte) (topics []string) {
	var all []asn1.RawValue
	if _, err := asn1.Unmarshal(value, &all); err != nil {
		return nil
	}
	for _, v := range all {
		if v.Class == asn1.ClassUniversal && slices.Contains([]int{asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String}, v.Tag) {
			topics = append(topics, string(v.Bytes))
		}
	}
	return topics
}

func parseCertificate(certPEM, keyPEM []byte, bundleID string) (tls.Certificate, error) {
	blocks := readPEM(certPEM)
	certs, err := certificatesIn(blocks, len(certPEM))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %w", err)
	}
	if len(keyPEM) > 0 {
		blocks = readPEM(keyPEM)
	} else if !slices.ContainsFunc(blocks, func(b pemBlock) bool { return b.kind.isKey() }) {
		return tls.Certificate{}, errors.New("the file has no private key, expected one in it or in a file of its own")
	}
	key, err := privateKeyIn(blocks, len(keyPEM))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the certificate's key %w", err)
	}
	public := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	leaf := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return public.Equal(c.PublicKey) })
	if leaf < 0 {
		return tls.Certificate{}, fmt.Errorf("the certificate's key is %s that belongs to another certificate, expected that of %q", describeKey(key), certs[0].Subject.CommonName)
	}
	if err := InspectCertificate(certs[leaf]).check(bundleID, time.Now()); err != nil {
		return tls.Certificate{}, err
	}
	pair := tls.Certificate{Certificate: [][]byte{certs[leaf].Raw}, PrivateKey: key, Leaf: certs[leaf]}
	for _, c := range certs {
		if !bytes.Equal(c.Raw, pair.Leaf.Raw) {
			pair.Certificate = append(pair.Certificate, c.Raw)
		}
	}
	return pair, nil
}

// certificatesIn returns the certificates in a file of size bytes. The error begins with "is"
// or "has".
func certificatesIn(blocks []pemBlock, size int) (certs []*x509.Certificate, err error) {
	for _, b := range blocks {
		if b.kind != kindCertificate {
			continue
		}
		if b.err != nil {
			return nil, b.err
		}
		cert, ok := b.value.(*x509.Certificate)
		if !ok {
			_, err := x509.ParseCertificate(b.der)
			return nil, fmt.Errorf("is not one in X.509: %w", err)
		}
		certs = append(certs, cert)
	}
	switch {
	case len(certs) > 0:
		return certs, nil
	case len(blocks) == 0:
		return nil, fmt.Errorf("has no PEM in its %d bytes, expected -----BEGIN CERTIFICATE----- and what follows it", size)
	case blocks[0].kind == kindPKCS12:
		return nil, fmt.Errorf("is %v, expected PEM: openssl pkcs12 -legacy -nodes converts it (before OpenSSL 3 without -legacy)", blocks[0].kind)
	case blocks[0].kind == "":
		return nil, fmt.Errorf("%w, expected a certificate in PEM", blocks[0].err)
	}
	return nil, fmt.Errorf("is %v, expected a certificate in PEM", blocks[0].kind)
}

// privateKeyIn returns the private key in a file of size bytes. The error begins with "is" or
// "has".
func privateKeyIn(blocks []pemBlock, size int) (crypto.Signer, error) {
	keys := slices.DeleteFunc(slices.Clone(blocks), func(b pemBlock) bool { return !b.kind.isKey() })
	switch {
	case len(blocks) == 0:
		return nil, fmt.Errorf("has no PEM in its %d bytes, expected -----BEGIN PRIVATE KEY----- and what follows it", size)
	case len(keys) == 0 && blocks[0].kind == "":
		return nil, fmt.Errorf("%w, expected a private key in PEM", blocks[0].err)
	case len(keys) == 0:
		return nil, fmt.Errorf("is %v, expected a private key in PEM", blocks[0].kind)
	case len(keys) > 1:
		return nil, fmt.Errorf("is one of %d keys in the text, expected one", len(keys))
	case keys[0].kind == kindEncrypted:
		return nil, errors.New("is encrypted, expected one that is not: openssl pkey decrypts it")
	case keys[0].kind == kindOpenSSH:
		return nil, fmt.Errorf("is %v, expected PKCS #8, PKCS #1 or SEC 1", keys[0].kind)
	case keys[0].err != nil:
		return nil, keys[0].err
	}
	switch key := keys[0].value.(type) {
	case crypto.Signer:
		return key, nil
	case *ecdh.PrivateKey:
		return nil, fmt.Errorf("is %s, expected an RSA or ECDSA key", describeKey(key))
	}
	_, err := x509.ParsePKCS8PrivateKey(keys[0].der)
	return nil, fmt.Errorf("is not a private key in PKCS #8, PKCS #1 or SEC 1: %w", err)
}
