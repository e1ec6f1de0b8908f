################################################################################
#
# hal-haproxy
#
################################################################################

HAL_HAPROXY_VERSION_MAJOR = 3.0
HAL_HAPROXY_VERSION = $(HAL_HAPROXY_VERSION_MAJOR).25
HAL_HAPROXY_SOURCE = haproxy-$(HAL_HAPROXY_VERSION).tar.gz
HAL_HAPROXY_SITE = https://www.haproxy.org/download/$(HAL_HAPROXY_VERSION_MAJOR)/src
HAL_HAPROXY_LICENSE = GPL-2.0+ and LGPL-2.1+ with exceptions
HAL_HAPROXY_LICENSE_FILES = LICENSE doc/lgpl.txt doc/gpl.txt
HAL_HAPROXY_CPE_ID_VENDOR = haproxy
HAL_HAPROXY_CPE_ID_PRODUCT = haproxy
HAL_HAPROXY_DEPENDENCIES = libxcrypt lua openssl pcre2 zlib

HAL_HAPROXY_MAKE_OPTS = \
	LD="$(TARGET_CC)" \
	PREFIX=/usr \
	TARGET=linux-glibc \
	CPU_CFLAGS="$(TARGET_CFLAGS)" \
	USE_LUA=1 \
	LUA_INC=$(STAGING_DIR)/usr/include \
	LUA_LIB_NAME=lua \
	USE_OPENSSL=1 \
	USE_PCRE2=1 \
	PCRE2_CONFIG=$(STAGING_DIR)/usr/bin/pcre2-config \
	USE_PROMEX=1 \
	USE_ZLIB=1 \
	VERDATE=$(HAL_HAPROXY_VERSION) \
	VERSION=$(HAL_HAPROXY_VERSION) \
	SUBVERS=

ifeq ($(BR2_PACKAGE_PCRE2_JIT),y)
HAL_HAPROXY_MAKE_OPTS += USE_PCRE2_JIT=1
endif

ifeq ($(BR2_TOOLCHAIN_HAS_LIBATOMIC),y)
HAL_HAPROXY_MAKE_OPTS += ADDLIB=-latomic
endif

define HAL_HAPROXY_BUILD_CMDS
	$(TARGET_MAKE_ENV) $(MAKE) $(TARGET_CONFIGURE_OPTS) \
		$(HAL_HAPROXY_MAKE_OPTS) -C $(@D) haproxy
endef

define HAL_HAPROXY_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/haproxy $(TARGET_DIR)/usr/sbin/haproxy
endef

$(eval $(generic-package))
