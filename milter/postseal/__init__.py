"""postseal: S/MIME for Postfix and Sendmail."""

__version__ = "0.1.0"
