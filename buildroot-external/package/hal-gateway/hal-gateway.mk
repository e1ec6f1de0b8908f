################################################################################
#
# hal-gateway
#
################################################################################

HAL_GATEWAY_LICENSE = Apache-2.0
HAL_GATEWAY_DEPENDENCIES = hal-haproxy hal-os

HAL_GATEWAY_TOKEN = $(call qstrip,$(BR2_PACKAGE_HAL_GATEWAY_TOKEN_SHA256))

# The digest of no token, in specs whose token Buildroot's configuration has.
HAL_GATEWAY_NO_TOKEN = 0000000000000000000000000000000000000000000000000000000000000000

ifneq ($(HAL_GATEWAY_TOKEN),)
define HAL_GATEWAY_SET_TOKEN
	echo $(HAL_GATEWAY_TOKEN) | grep -Eqx '[0-9a-fA-F]{64}' || { \
		echo "BR2_PACKAGE_HAL_GATEWAY_TOKEN_SHA256 is no SHA-256" >&2; \
		exit 1; \
	}
	$(SED) "s/^$(HAL_GATEWAY_NO_TOKEN) /$$(echo $(HAL_GATEWAY_TOKEN) | tr a-f A-F) /" \
		$(TARGET_DIR)/etc/hal/gateway/tokens.map
endef
endif

define HAL_GATEWAY_INSTALL_TARGET_CMDS
	$(call hal-install-rendered, \
		etc/hal/gateway/* usr/lib/hal/gateway*? \
		usr/lib/hal/credentials*?)
	$(HAL_GATEWAY_SET_TOKEN)
endef

define HAL_GATEWAY_INSTALL_INIT_SYSTEMD
	$(call hal-install-rendered,usr/lib/systemd/system/hal-gateway.*)
endef

define HAL_GATEWAY_INSTALL_INIT_SYSV
	$(call hal-install-rendered, \
		etc/init.d/S60hal-gateway usr/lib/hal/filters/hal-gateway.*)
endef

define HAL_GATEWAY_USERS
	hal-gateway 901 hal-gateway 901 * - /usr/sbin/nologin - hal gateway
endef

define HAL_GATEWAY_PERMISSIONS
	/etc/hal/gateway r -1 0 0 - - - - -
endef

$(eval $(generic-package))
