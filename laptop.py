"""The session of a plain `python etl.py`: what a cluster brings and a laptop does not.

Java, settings for one machine, and for S3 the jars of S3A and the credentials that boto3 finds. Under spark-submit the
platform owns all of that, and nobody imports this file.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

if TYPE_CHECKING:
    from etl import Settings

CONF = {
    "spark.app.name": "etl.py",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": "8",  # with 32 the sample takes a third longer
    "spark.sql.inMemoryColumnarStorage.compressed": "false",  # 2 million events: 9 of 73 s less, 54 MB more
}
LOCAL_FILES_CONF = {
    # no .crc files, and no chmod process for each file; S3A can't do with it
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
}
S3_CONF = {
    "spark.master": "local[32]",  # reading small files waits for S3, so more threads than cores
    "spark.jars.packages": "org.apache.hadoop:hadoop-aws:3.4.1,org.apache.spark:spark-hadoop-cloud_2.13:4.0.2,"
    "software.amazon.awssdk:s3:2.29.52,software.amazon.awssdk:s3-transfer-manager:2.29.52,"
    "software.amazon.awssdk:sts:2.29.52",
    # the SDK's bundle of 500 MB, what pyspark has already, and other clouds: 10 MB are left
    "spark.jars.excludes": "software.amazon.awssdk:bundle,io.netty:*,com.fasterxml.jackson.*:*,org.slf4j:*,"
    "org.apache.httpcomponents:*,commons-codec:*,org.eclipse.jetty:*,com.squareup.*:*,com.google.cloud.*:*,joda-time:*,"
    "org.apache.hadoop:hadoop-client-*,org.apache.hadoop:hadoop-azure*,org.apache.hadoop:hadoop-cloud-storage,"
    "org.wildfly.openssl:*",
    # The magic committer: nothing can be seen before the commit and nothing is copied, 3 requests for each file
    # instead of the file committer's 18.
    "spark.sql.sources.commitProtocolClass": "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
    "spark.sql.parquet.output.committer.class": "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter",
}
S3A_CONF = {
    # a hang is found by its silence; all tries of a request end in less than two minutes
    "fs.s3a.connection.establish.timeout": "5s",
    "fs.s3a.connection.timeout": "5s",
    "fs.s3a.connection.request.timeout": "5s",
    "fs.s3a.attempts.maximum": "2",
    "fs.s3a.retry.limit": "4",
    "fs.s3a.retry.interval": "200ms",
    "fs.s3a.retry.throttle.limit": "6",
    "fs.s3a.retry.throttle.interval": "200ms",
    "mapreduce.outputcommitter.factory.scheme.s3a": "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory",
    "fs.s3a.committer.name": "magic",
    "fs.s3a.committer.magic.track.commits.in.memory.enabled": "true",
    "fs.s3a.performance.flags": "create,mkdir",
}
SPARK = "4.0"  # which Iceberg's jar is for
ICEBERG = f"org.apache.iceberg:iceberg-spark-runtime-{SPARK}_2.13:1.10.1"
ICEBERG_AWS = ",".join(f"software.amazon.awssdk:{part}:2.29.52" for part in ("glue", "kms", "dynamodb"))
AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL")
JAVA_PROPERTIES = {  # by which Iceberg's clients of Glue and S3 learn what S3A has settings for
    "fs.s3a.access.key": "aws.accessKeyId",
    "fs.s3a.secret.key": "aws.secretAccessKey",
    "fs.s3a.session.token": "aws.sessionToken",
    "fs.s3a.proxy.host": "http.proxyHost",
    "fs.s3a.proxy.port": "http.proxyPort",
    "fs.s3a.proxy.username": "http.proxyUser",
    "fs.s3a.proxy.password": "http.proxyPassword",
}
CREDENTIALS_PROVIDER = "org.apache.hadoop.fs.s3a.{}AWSCredentialsProvider"
BUNDLE = "certificates"  # a setting of ours, not of S3A
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
AWS_ENDPOINT = re.compile(r"https://s3([.-][a-z0-9-]+)*\.amazonaws\.com(\.cn)?")

# A short run ends before what Java's second compiler makes has paid for itself, and so does a longer one that reads
# small files from S3: it waits more than it computes. The sample takes a quarter less.
SMALL_INPUT_BYTES = 128 << 20
# With the first compiler alone, Java keeps 48 MB for compiled code. One run fills 33 to 39 of them; when they are full,
# Java compiles no more and Spark may stop, such as in a notebook's second run that writes Iceberg tables.
SMALL_INPUT_JAVA = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"  # as with both compilers

JAVA_PACKAGE = "apt-get install openjdk-17-jre-headless"
START_PROBLEMS = {
    "UnsupportedClassVersionError": f"Java 17 or 21 is needed and the one found is older (Debian: {JAVA_PACKAGE})",
    "getSubject is not supported": f"Java 17 or 21 is needed and the one found is newer (Debian: {JAVA_PACKAGE})",
    "(?i).*(?:could not (?:reserve|allocate)|cannot allocate memory|insufficient memory).*": (
        "too little memory for Spark's JVM: {0}"
    ),
    "(?:Unrecognized|Invalid) .*": "Java or Spark refuses a setting of yours: {0}",
    "unresolved dependency: [^:\\n]*": "cannot download jars: {0}; is Maven Central reachable?",
}


class SessionError(Exception):
    """There is no session for this run: what it needs is not there or refuses, or what the user has set cannot work."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def create_session(settings: Settings, verbose: bool = False) -> SparkSession:
    """A local session for this run, with S3A where its input, output or report is on S3.

    Raises SessionError, in one line: no Java, no jars, a bucket that cannot be listed.
    """
    check_java()
    uris = [uri for uri in (settings.input, settings.output, settings.report) if uri]
    access, size = s3a_access(uris, settings.aws) if any(map(bucket_of, uris)) else ({}, 0)
    if settings.input.startswith("file://"):
        size = local_bytes(settings.input)
    conf = CONF | (S3_CONF if access else {} if settings.catalog else LOCAL_FILES_CONF)
    if settings.catalog:
        if not pyspark.__version__.startswith(f"{SPARK}."):
            problem = f"Iceberg's jar is for pyspark {SPARK}, and {pyspark.__version__} is installed"
            raise SessionError(f"{problem}: pip install -r requirements.txt", 2)
        jars = [ICEBERG, conf["spark.jars.packages"], ICEBERG_AWS] if access else [ICEBERG]
        conf["spark.jars.packages"] = ",".join(jars)
    is_local = all(uri.startswith("file://") for uri in uris)
    conf["spark.driver.extraClassPath"] = hide_defaults("mapred", "yarn", *(["core"] if is_local else []))
    if settings.input.startswith(("file://", "s3a://")) and size <= SMALL_INPUT_BYTES:
        conf["spark.driver.defaultJavaOptions"] = SMALL_INPUT_JAVA
    else:  # with fewer partitions than cores some would idle
        conf["spark.sql.shuffle.partitions"] = str(max(8, os.cpu_count() or 8))
    if "spark.jars.packages" in conf and "--packages" in os.environ.get("PYSPARK_SUBMIT_ARGS", ""):
        raise SessionError("PYSPARK_SUBMIT_ARGS has --packages, which would replace the jars of this run; unset it", 2)
    spark = start(conf, verbose)
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    if bundle := access.pop(BUNDLE, ""):
        trust(spark, bundle)
    for key, value in access.items():  # not by Spark's settings, which are on the JVM's command line
        hadoop.set(key, value)
    if settings.catalog:
        open_catalog(spark, settings, access)
    return spark


def open_catalog(spark: SparkSession, settings: Settings, access: Mapping[str, str]) -> None:
    """Sets up the catalog: Glue for an output on S3, else one of files at the output."""
    name = f"spark.sql.catalog.{settings.catalog.split('.')[0]}"
    conf = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "hadoop",
        ".warehouse": settings.output.replace("file://", "file:"),
    }
    if settings.output.startswith("s3a://"):
        region = access[f"fs.s3a.bucket.{bucket_of(settings.output)}.endpoint.region"]
        conf |= {".type": "glue", ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO", ".client.region": region}
        if endpoint := access.get("fs.s3a.endpoint"):
            conf |= {".s3.endpoint": endpoint, ".s3.path-style-access": "true"}
        if endpoint := settings.aws.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL"):  # of all services
            conf[".glue.endpoint"] = endpoint
        system: Any = getattr(spark._jvm, "java.lang.System")
        for key in JAVA_PROPERTIES.keys() & access.keys():  # not where a setting would show them
            system.setProperty(JAVA_PROPERTIES[key], access[key])
    for key, value in conf.items():
        spark.conf.set(name + key, value)


# --- Java and Spark --------------------------------------------------------------------------------------------------


def check_java() -> None:
    """SessionError where there is no Java, or where PySpark could not start it."""
    home = os.environ.get("JAVA_HOME")
    program = os.path.join(home, "bin", "java") if home else "java"
    if not shutil.which(program):
        raise SessionError(f"Java 17 or 21 is needed and {program} was not found (Debian: {JAVA_PACKAGE})")
    if not os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell").rstrip().endswith("pyspark-shell"):
        raise SessionError("PYSPARK_SUBMIT_ARGS must end with pyspark-shell, else PySpark cannot start Java with it", 2)


def start(conf: dict[str, str], verbose: bool) -> SparkSession:
    """Starts Spark; what its JVM prints is shown only where that is asked for, or where it does not start."""
    settings = SparkConf(loadDefaults=False).setAll(list(conf.items()))
    os.environ["LC_ALL"] = "C.UTF-8"  # in another locale Java leaves out files whose names it cannot spell
    os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")  # no network knows the name of many a laptop
    with tempfile.TemporaryFile() as printed:
        output = {} if verbose else {"stdout": printed, "stderr": printed}
        # S3A has settings for boto3's proxy; by the variables Java would also go where boto3 does not
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.lower() in PROXY_VARIABLES}
        try:
            gateway = launch_gateway(settings, output)  # type: ignore[no-untyped-call]
            context = SparkContext(gateway=gateway, conf=settings)
        except Exception as error:
            raise SessionError(why_not_started(error, printed)) from error
        finally:
            os.environ |= hidden
    if not verbose:
        context.setLogLevel("OFF")  # an error is told in one line, at the end
    return SparkSession(context)


def temporary_folder() -> str:
    """A folder that goes when Python ends by itself; Java needs what is in it until then."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def hide_defaults(*names: str) -> str:
    """A folder for the class path whose empty files stand before Hadoop's files of defaults.

    Spark copies all settings for each file that it reads. Of 1,075 defaults 700 are YARN's and MapReduce's; a run on
    local files needs none, for Hadoop's code has the same. 14,896 songs on local disk take 7% less without them.
    """
    folder = temporary_folder()
    for name in names:
        with open(os.path.join(folder, f"{name}-default.xml"), "w") as file:
            file.write("<configuration/>")
    return folder


def why_not_started(error: Exception, printed: IO[bytes]) -> str:
    """The reason, out of what Python and the JVM say."""
    time.sleep(0.2)  # for its last words
    printed.seek(0)
    text = f"{error}\n{printed.read().decode(errors='replace')}".strip()
    for pattern, problem in START_PROBLEMS.items():
        if match := re.search(pattern, text):
            return problem.format(match[0])
    errors = re.findall(r"[.\w]+(?:Exception|Error): .+", text) or text.splitlines()
    return f"Spark did not start: {errors[-1]}"


def local_bytes(uri: str) -> int:
    """The bytes of a local folder's files, or of enough of them to know that they are many."""
    size = 0
    for path, _, files in os.walk(uri.removeprefix("file://")):
        for name in files:
            with contextlib.suppress(OSError):  # a broken link; reading tells
                size += os.path.getsize(os.path.join(path, name))
        if size > SMALL_INPUT_BYTES:
            break
    return size


# --- S3 --------------------------------------------------------------------------------------------------------------


def s3a_access(uris: list[str], aws: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """S3A's settings for the URIs, of which the first is the input; and the bytes of its first files.

    With the credentials that boto3 finds. Asks each bucket, so that a wrong key or place fails here, at once, in one
    line.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise SessionError("boto3 is needed for S3 outside a cluster: pip install -r requirements.txt", 2) from None
    key, secret, token, region, endpoint = (aws.get(name) or None for name in AWS_KEYS)
    if bool(key) != bool(secret) or (token and not key):
        wanted = "AWS_ACCESS_KEY_ID" if not key else "AWS_SECRET_ACCESS_KEY"
        raise SessionError(f"dl.cfg: {wanted} in [AWS] is empty; give both halves of the key, or none", 2)
    try:
        session = boto3.Session(key, secret, token, region or os.environ.get("AWS_REGION"))
        found = session.get_credentials()
        keys = found and found.get_frozen_credentials()
    except (BotoCoreError, ClientError, OSError, ValueError) as error:  # the last two of a credential_process
        raise SessionError(f"cannot get AWS credentials: {error}") from error
    conf, size = S3A_CONF | credentials_conf(keys), 0
    bundle = session._session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")  # as boto3 does
    uris = list(dict.fromkeys(uris))  # the questions have one place, and read it
    written = {bucket_of(uri) for uri in uris[1:]}
    for uri in filter(bucket_of, uris):
        folders = ("song_data/", "log_data/") if uri == uris[0] else ("",)
        try:
            client = s3_client(session, endpoint, is_signed=bool(keys))
            if bundle and client.meta.endpoint_url.startswith("https:"):
                conf[BUNDLE] = bundle
            try:
                size += listed_bytes(client, uri, folders)
            except ClientError as error:
                is_denied = error.response["Error"]["Code"] == "AccessDenied"
                if not (is_denied and keys) or bucket_of(uri) in written:
                    raise
                # a public input needs no right of the caller's own
                client = s3_client(session, endpoint, is_signed=False)
                size += listed_bytes(client, uri, folders)
                anonymous = CREDENTIALS_PROVIDER.format("Anonymous")
                conf[f"fs.s3a.bucket.{bucket_of(uri)}.aws.credentials.provider"] = anonymous
            conf |= bucket_conf(client, bucket_of(uri))
        except ClientError as error:
            problem = error.response["Error"]
            hint = "" if keys else "; no AWS credentials were found, and without them only public buckets can be read"
            raise SessionError(f"cannot list {uri}: {problem.get('Message')} ({problem['Code']}){hint}") from error
        except (BotoCoreError, ValueError) as error:  # the last of an endpoint that is no URL
            raise SessionError(f"cannot reach S3 for {uri}: {error}") from error
    return conf, size


def bucket_of(uri: str) -> str:
    """The bucket of an s3a:// URI; empty for another."""
    return uri.split("/")[2] if uri.startswith("s3a://") else ""


def trust(spark: SparkSession, bundle: str) -> None:
    """Lets Java trust the authorities that boto3 trusts by a bundle: Java reads no file of PEM certificates."""
    jvm: Any = spark._jvm
    store = jvm.java.security.KeyStore.getInstance("JKS")  # which Java reads without its password
    store.load(None, None)
    certificates = jvm.java.security.cert.CertificateFactory.getInstance("X.509")
    for certificate in certificates.generateCertificates(jvm.java.io.FileInputStream(bundle)):
        store.setCertificateEntry(str(store.size()), certificate)
    path = os.path.join(temporary_folder(), "trusted.jks")
    gateway: Any = spark.sparkContext._gateway
    store.store(jvm.java.io.FileOutputStream(path), gateway.new_array(jvm.char, 1))
    jvm.java.lang.System.setProperty("javax.net.ssl.trustStore", path)


def credentials_conf(keys: Any) -> dict[str, str]:
    """S3A's settings for the keys that boto3 has found, or for none."""
    kind = "Anonymous" if not keys else "Temporary" if keys.token else "Simple"
    found = {"access.key": keys.access_key, "secret.key": keys.secret_key, "session.token": keys.token} if keys else {}
    conf = {f"fs.s3a.{name}": value for name, value in found.items() if value}
    return conf | {"fs.s3a.aws.credentials.provider": CREDENTIALS_PROVIDER.format(kind)}


def s3_client(session: Any, endpoint: str | None, is_signed: bool) -> Any:
    """boto3's client of S3, which soon tells where nothing answers; one that does not sign sees public buckets only."""
    import botocore
    from botocore.config import Config

    limits = {"connect_timeout": 5, "read_timeout": 10, "retries": {"mode": "standard", "max_attempts": 4}}
    config = Config(signature_version=None if is_signed else botocore.UNSIGNED, **limits)
    region = session.region_name or "us-east-1"
    return session.client("s3", region_name=region, endpoint_url=endpoint, config=config)


def listed_bytes(client: Any, uri: str, folders: tuple[str, ...]) -> int:
    """The bytes of the first thousand files below each folder of a URI; of a URI itself it asks only for the right."""
    bucket, _, prefix = uri.removeprefix("s3a://").partition("/")
    size = 0
    for folder in folders:
        start = (prefix and prefix + "/") + folder
        page = client.list_objects_v2(Bucket=bucket, Prefix=start, MaxKeys=1000 if folder else 1)
        size += sum(file["Size"] for file in page.get("Contents", ()) if folder)
    return size


def bucket_conf(client: Any, bucket: str) -> dict[str, str]:
    """S3A's settings for a bucket's own region, an endpoint that is not AWS's usual one, and boto3's proxy."""
    from botocore.exceptions import ClientError
    from botocore.utils import get_environ_proxies

    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:  # who may list a prefix only is refused, and told the region all the same
        answer = error.response
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    conf = {f"fs.s3a.bucket.{bucket}.endpoint.region": headers.get("x-amz-bucket-region", client.meta.region_name)}
    url = client.meta.endpoint_url
    if not AWS_ENDPOINT.fullmatch(url):
        conf |= {"fs.s3a.endpoint": url, "fs.s3a.path.style.access": "true"}
    elif url.startswith("https://s3-fips."):
        conf["fs.s3a.endpoint.fips"] = "true"
    if proxy := get_environ_proxies(url).get(urlsplit(url).scheme):  # Java does not know HTTPS_PROXY
        found = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        parts = {
            "host": found.hostname,
            "port": found.port or (443 if found.scheme == "https" else 80),
            "ssl.enabled": "true" if found.scheme == "https" else "",
            "username": found.username,
            "password": found.password,
        }
        conf |= {f"fs.s3a.proxy.{name}": unquote(str(part)) for name, part in parts.items() if part}
    return conf
