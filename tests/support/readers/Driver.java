// Bouncy Castle for the matrix: one job per line on standard input, fields parted by tabs; one answer per line on standard output,
// "ok", or "no" and the words of the exception. Octets go through files.
//
//   encrypt CIPHER issuer|key CONTENT RESULT {pkcs1|oaep-BITS|ecdh CERTIFICATE}...
//   decrypt DER RESULT KEY CERTIFICATE
//   sign detached|opaque CONTENT RESULT ROOT {ALGORITHM KEY CERTIFICATE}...
//   verify DER CONTENT|- ROOT RESULT

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Key;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.interfaces.ECPublicKey;
import java.security.spec.MGF1ParameterSpec;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.OAEPParameterSpec;
import javax.crypto.spec.PSource;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.ASN1OctetString;
import org.bouncycastle.asn1.cms.CMSObjectIdentifiers;
import org.bouncycastle.asn1.cms.ContentInfo;
import org.bouncycastle.asn1.cms.GCMParameters;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.asn1.x509.SubjectKeyIdentifier;
import org.bouncycastle.asn1.x509.SubjectPublicKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaCertStore;
import org.bouncycastle.cert.jcajce.JcaX509CertificateHolder;
import org.bouncycastle.cms.CMSAlgorithm;
import org.bouncycastle.cms.CMSAuthEnvelopedData;
import org.bouncycastle.cms.CMSAuthEnvelopedDataGenerator;
import org.bouncycastle.cms.CMSEnvelopedData;
import org.bouncycastle.cms.CMSEnvelopedDataGenerator;
import org.bouncycastle.cms.CMSException;
import org.bouncycastle.cms.CMSProcessableByteArray;
import org.bouncycastle.cms.CMSSignedData;
import org.bouncycastle.cms.CMSSignedDataGenerator;
import org.bouncycastle.cms.KeyAgreeRecipientId;
import org.bouncycastle.cms.Recipient;
import org.bouncycastle.cms.RecipientId;
import org.bouncycastle.cms.RecipientInfoGenerator;
import org.bouncycastle.cms.RecipientInformation;
import org.bouncycastle.cms.RecipientInformationStore;
import org.bouncycastle.cms.RecipientOperator;
import org.bouncycastle.cms.SignerInformation;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoGeneratorBuilder;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoVerifierBuilder;
import org.bouncycastle.cms.jcajce.JceCMSContentEncryptorBuilder;
import org.bouncycastle.cms.jcajce.JceKeyAgreeEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyAgreeRecipient;
import org.bouncycastle.cms.jcajce.JceKeyAgreeRecipientId;
import org.bouncycastle.cms.jcajce.JceKeyAgreeRecipientInfoGenerator;
import org.bouncycastle.cms.jcajce.JceKeyTransAuthEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyTransEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyTransRecipientId;
import org.bouncycastle.cms.jcajce.JceKeyTransRecipientInfoGenerator;
import org.bouncycastle.jcajce.io.CipherInputStream;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.InputAEADDecryptor;
import org.bouncycastle.operator.OutputAEADEncryptor;
import org.bouncycastle.operator.OutputEncryptor;
import org.bouncycastle.operator.jcajce.JcaAlgorithmParametersConverter;

public final class Driver {
    private static final String BC = "BC";

    public static void main(String[] arguments) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        BufferedReader jobs = new BufferedReader(new InputStreamReader(System.in));
        String line;
        while ((line = jobs.readLine()) != null) {
            String[] job = line.split("\t");
            try {
                switch (job[0]) {
                    case "encrypt": encrypt(job); break;
                    case "decrypt": decrypt(job); break;
                    case "sign": sign(job); break;
                    case "verify": verify(job); break;
                    default: throw new IllegalArgumentException("no such job: " + job[0]);
                }
                System.out.println("ok");
            } catch (Exception exc) {
                System.out.println("no\t" + String.valueOf(words(exc)).replaceAll("\\s+", " "));
            }
            System.out.flush();
        }
    }

    private static String words(Throwable exc) {
        return exc.getMessage() == null ? exc.getClass().getSimpleName() : exc.getMessage();
    }

    private static byte[] octets(String path) throws Exception {
        return Files.readAllBytes(Path.of(path));
    }

    private static void write(String path, byte[] octets) throws Exception {
        Files.write(Path.of(path), octets);
    }

    private static X509Certificate certificate(String path) throws Exception {
        return (X509Certificate)
                CertificateFactory.getInstance("X.509", BC).generateCertificate(new ByteArrayInputStream(octets(path)));
    }

    private static PrivateKey key(String path) throws Exception {
        return BouncyCastleProvider.getPrivateKey(PrivateKeyInfo.getInstance(octets(path)));
    }

    private static ASN1ObjectIdentifier wrapOf(String cipher) {
        return cipher.startsWith("aes128") ? CMSAlgorithm.AES128_WRAP
                : cipher.startsWith("aes192") ? CMSAlgorithm.AES192_WRAP : CMSAlgorithm.AES256_WRAP;
    }

    private static ASN1ObjectIdentifier contentCipher(String cipher) {
        switch (cipher) {
            case "aes128-cbc": return CMSAlgorithm.AES128_CBC;
            case "aes192-cbc": return CMSAlgorithm.AES192_CBC;
            case "aes256-cbc": return CMSAlgorithm.AES256_CBC;
            case "aes128-gcm": return CMSAlgorithm.AES128_GCM;
            case "aes256-gcm": return CMSAlgorithm.AES256_GCM;
            default: throw new IllegalArgumentException("no such cipher: " + cipher);
        }
    }

    private static byte[] keyIdentifier(X509Certificate certificate) throws Exception {
        return SubjectKeyIdentifier.fromExtensions(new JcaX509CertificateHolder(certificate).getExtensions()).getKeyIdentifier();
    }

    private static RecipientInfoGenerator recipient(String way, X509Certificate certificate, String cipher, boolean byKey)
            throws Exception {
        if (way.equals("pkcs1")) {
            return (byKey ? new JceKeyTransRecipientInfoGenerator(keyIdentifier(certificate), certificate.getPublicKey())
                    : new JceKeyTransRecipientInfoGenerator(certificate)).setProvider(BC);
        }
        if (way.startsWith("oaep-")) {
            String hash = "SHA-" + way.substring(5);
            OAEPParameterSpec parameters =
                    new OAEPParameterSpec(hash, "MGF1", new MGF1ParameterSpec(hash), PSource.PSpecified.DEFAULT);
            AlgorithmIdentifier algorithm = new JcaAlgorithmParametersConverter()
                    .getAlgorithmIdentifier(PKCSObjectIdentifiers.id_RSAES_OAEP, parameters);
            return new JceKeyTransRecipientInfoGenerator(certificate, algorithm).setProvider(BC);
        }
        KeyPairGenerator pairs;
        if (certificate.getPublicKey() instanceof ECPublicKey) {
            pairs = KeyPairGenerator.getInstance("EC", BC);
            pairs.initialize(((ECPublicKey) certificate.getPublicKey()).getParams());
        } else {
            pairs = KeyPairGenerator.getInstance(certificate.getPublicKey().getAlgorithm(), BC);
        }
        KeyPair ephemeral = pairs.generateKeyPair();
        JceKeyAgreeRecipientInfoGenerator agreement = new JceKeyAgreeRecipientInfoGenerator(
                CMSAlgorithm.ECDH_SHA256KDF, ephemeral.getPrivate(), ephemeral.getPublic(), wrapOf(cipher)).setProvider(BC);
        return byKey ? agreement.addRecipient(keyIdentifier(certificate), certificate.getPublicKey())
                : agreement.addRecipient(certificate);
    }

    private static void encrypt(String[] job) throws Exception {
        String cipher = job[1];
        CMSProcessableByteArray content = new CMSProcessableByteArray(octets(job[3]));
        OutputEncryptor encryptor = new JceCMSContentEncryptorBuilder(contentCipher(cipher)).setProvider(BC).build();
        boolean gcm = cipher.endsWith("gcm");
        CMSEnvelopedDataGenerator plain = new CMSEnvelopedDataGenerator();
        CMSAuthEnvelopedDataGenerator authenticated = new CMSAuthEnvelopedDataGenerator();
        for (int at = 5; at < job.length; at += 2) {
            RecipientInfoGenerator each = recipient(job[at], certificate(job[at + 1]), cipher, job[2].equals("key"));
            if (gcm) {
                authenticated.addRecipientInfoGenerator(each);
            } else {
                plain.addRecipientInfoGenerator(each);
            }
        }
        write(job[4], gcm ? authenticated.generate(content, (OutputAEADEncryptor) encryptor).getEncoded()
                : plain.generate(content, encryptor).getEncoded());
    }

    private static void decrypt(String[] job) throws Exception {
        byte[] der = octets(job[1]);
        PrivateKey key = key(job[3]);
        X509Certificate certificate = certificate(job[4]);
        boolean gcm = ContentInfo.getInstance(der).getContentType().equals(CMSObjectIdentifiers.authEnvelopedData);
        RecipientInformationStore infos = gcm ? new CMSAuthEnvelopedData(der).getRecipientInfos()
                : new CMSEnvelopedData(der).getRecipientInfos();
        boolean transported = key.getAlgorithm().equals("RSA");
        RecipientId id = transported ? new JceKeyTransRecipientId(certificate) : new JceKeyAgreeRecipientId(certificate);
        Collection<RecipientInformation> found = infos.getRecipients(id);
        if (found.isEmpty() && !transported) {
            // The identifier above is issuer and serial number alone.
            found = infos.getRecipients(new KeyAgreeRecipientId(keyIdentifier(certificate)));
        }
        if (found.isEmpty()) {
            throw new CMSException("no recipient info for the certificate");
        }
        Recipient recipient;
        if (transported) {
            recipient = gcm ? new JceKeyTransAuthEnvelopedRecipient(key).setProvider(BC)
                    : new JceKeyTransEnvelopedRecipient(key).setProvider(BC);
        } else {
            recipient = gcm ? new KeyAgreeAuthEnveloped(key).setProvider(BC)
                    : new JceKeyAgreeEnvelopedRecipient(key).setProvider(BC);
        }
        write(job[2], found.iterator().next().getContent(recipient));
    }

    private static void sign(String[] job) throws Exception {
        CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
        List<X509Certificate> certificates = new ArrayList<>(List.of(certificate(job[4])));
        for (int at = 5; at < job.length; at += 3) {
            X509Certificate certificate = certificate(job[at + 2]);
            certificates.add(certificate);
            generator.addSignerInfoGenerator(
                    new JcaSimpleSignerInfoGeneratorBuilder().setProvider(BC).build(job[at], key(job[at + 1]), certificate));
        }
        generator.addCertificates(new JcaCertStore(certificates));
        CMSProcessableByteArray content = new CMSProcessableByteArray(octets(job[2]));
        write(job[3], generator.generate(content, job[1].equals("opaque")).getEncoded());
    }

    @SuppressWarnings("unchecked")
    private static void verify(String[] job) throws Exception {
        byte[] der = octets(job[1]);
        boolean opaque = job[2].equals("-");
        CMSSignedData signed =
                opaque ? new CMSSignedData(der) : new CMSSignedData(new CMSProcessableByteArray(octets(job[2])), der);
        if (signed.getSignerInfos().size() == 0) {
            throw new CMSException("nobody signed it");
        }
        for (SignerInformation signer : signed.getSignerInfos()) {
            Collection<X509CertificateHolder> found = signed.getCertificates().getMatches(signer.getSID());
            if (found.isEmpty()) {
                throw new CMSException("the signer's certificate is missing");
            }
            X509Certificate certificate = (X509Certificate) CertificateFactory.getInstance("X.509", BC)
                    .generateCertificate(new ByteArrayInputStream(found.iterator().next().getEncoded()));
            certificate.verify(certificate(job[3]).getPublicKey(), BC);
            if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider(BC).build(certificate))) {
                throw new CMSException("the signature is wrong");
            }
        }
        write(job[4], opaque ? (byte[]) signed.getSignedContent().getContent() : octets(job[2]));
    }

    // Bouncy Castle has no class for AuthEnvelopedData by key agreement; an application makes one of what there is.
    private static final class KeyAgreeAuthEnveloped extends JceKeyAgreeRecipient {
        KeyAgreeAuthEnveloped(PrivateKey key) {
            super(key);
        }

        @Override
        public RecipientOperator getRecipientOperator(
                AlgorithmIdentifier keyEncryption, AlgorithmIdentifier contentEncryption,
                SubjectPublicKeyInfo sender, ASN1OctetString ukm, byte[] encryptedKey) throws CMSException {
            Key secret = extractSecretKey(keyEncryption, contentEncryption, sender, ukm, encryptedKey);
            try {
                GCMParameters parameters = GCMParameters.getInstance(contentEncryption.getParameters());
                Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding", BC);
                cipher.init(Cipher.DECRYPT_MODE, secret,
                        new GCMParameterSpec(8 * parameters.getIcvLen(), parameters.getNonce()));
                return new RecipientOperator(new Aead(contentEncryption, cipher));
            } catch (java.security.GeneralSecurityException exc) {
                throw new CMSException("AES-GCM: " + exc.getMessage(), exc);
            }
        }
    }

    // The ciphertext arrives with its tag behind it, and BC's stream throws when the tag is wrong.
    private static final class Aead implements InputAEADDecryptor {
        private final AlgorithmIdentifier algorithm;
        private final Cipher cipher;

        Aead(AlgorithmIdentifier algorithm, Cipher cipher) {
            this.algorithm = algorithm;
            this.cipher = cipher;
        }

        @Override
        public AlgorithmIdentifier getAlgorithmIdentifier() {
            return algorithm;
        }

        @Override
        public InputStream getInputStream(InputStream ciphertext) {
            return new CipherInputStream(ciphertext, cipher);
        }

        @Override
        public OutputStream getAADStream() {
            return new OutputStream() {
                @Override
                public void write(int octet) {
                    cipher.updateAAD(new byte[] {(byte) octet});
                }
            };
        }

        @Override
        public byte[] getMAC() {
            return new byte[0];
        }
    }
}
