// The function app on Flex Consumption. Settings stand in a resource of their own, which replaces the whole set.

@description('Name of the plan.')
param planName string

@description('Name of the site, and with it of its host.')
param siteName string

@description('Azure region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Resource id of the identity.')
param identityId string

@description('Client id of the identity.')
param identityClientId string

@description('URL of the blob service.')
param blobEndpoint string

@description('URL of the queue service.')
param queueEndpoint string

@description('URL of the table service.')
param tableEndpoint string

@description('The container of the deployed package.')
param packageContainer string

@description('Connection string of Application Insights. No secret: local authentication is off.')
param connectionString string

@description('The workspace for diagnostics.')
param workspaceId string

@description('Where references to secrets begin.')
param secretsUrl string

@description('The subnet of the app. Empty: none.')
param subnetId string

@description('Public base URL.')
param serviceUrl string

@description('SHA-256 of the first API token, or nothing.')
param bootstrapTokenId string

@description('Client id of the OAuth2 app of the settings, or nothing.')
param oauthClientId string

@description('How that app proves itself.')
param oauthCredential 'none' | 'identity' | 'secret' | 'certificate'

@description('What that app is.')
param oauthProvider 'outlook' | 'outlookService'

@description('Where people sign in: a tenant id, or organizations.')
param oauthAuthority string

@description('National cloud of that app.')
param oauthCloud string

@description('How mail travels.')
param sendFormat string

@description('Shortest wait between polls, in seconds.')
param pollIntervalSeconds int

@description('Longest wait between polls, in seconds.')
param pollLongestSeconds int

@description('Networks inside which webhooks may be sent.')
param webhookPrivateTargets string

@description('Whether access tokens of mailboxes are handed out.')
param oauthTokensApi bool

@description('Memory of an instance in MB.')
param instanceMemory int

@description('The most instances of each function group.')
param maximumInstances int

@description('HTTP instances that are always warm.')
param alwaysReadyHttp int

@description('HTTP requests at once in one instance.')
param httpConcurrency int

@description('Over availability zones.')
param zoneRedundant bool

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: siteName
  location: location
  kind: 'functionapp,linux'
  tags: union(tags, {
    'azd-service-name': 'api'
  })
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    // Flex Consumption refuses most other properties here.
    siteConfig: {
      minTlsVersion: '1.2'
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${blobEndpoint}${packageContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.13'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemory
        maximumInstanceCount: maximumInstances
        alwaysReady: alwaysReadyHttp == 0 ? [] : [
          {
            name: 'http'
            instanceCount: alwaysReadyHttp
          }
        ]
        triggers: {
          http: {
            perInstanceConcurrency: httpConcurrency
          }
        }
      }
    }
  }
}

resource ftp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
}

resource scm 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
}

resource settings 'Microsoft.Web/sites/config@2025-03-01' = {
  parent: app
  name: 'appsettings'
  properties: {
    AzureWebJobsStorage__blobServiceUri: blobEndpoint
    AzureWebJobsStorage__queueServiceUri: queueEndpoint
    AzureWebJobsStorage__tableServiceUri: tableEndpoint
    AzureWebJobsStorage__credential: 'managedidentity'
    AzureWebJobsStorage__clientId: identityClientId
    AzureWebJobsDisableHomepage: 'true'
    APPLICATIONINSIGHTS_CONNECTION_STRING: connectionString
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
    KEY_RING: '@Microsoft.KeyVault(SecretUri=${secretsUrl}key-ring)'
    SERVICE_URL: serviceUrl
    BOOTSTRAP_TOKEN_ID: bootstrapTokenId
    SEND_FORMAT: sendFormat
    POLL_INTERVAL_SECONDS: string(pollIntervalSeconds)
    POLL_LONGEST_SECONDS: string(pollLongestSeconds)
    WEBHOOK_PRIVATE_TARGETS: webhookPrivateTargets
    OAUTH_TOKENS_API: oauthTokensApi ? 'true' : 'false'
    CHANGES_HOLD_SECONDS: '15'
    OAUTH_APP_NAME: 'Microsoft 365'
    OAUTH_APP_PROVIDER: oauthProvider
    OAUTH_APP_CLIENT_ID: oauthClientId
    OAUTH_APP_MANAGED_IDENTITY: oauthCredential == 'identity' ? identityClientId : ''
    OAUTH_APP_CLIENT_SECRET: oauthCredential == 'secret' ? '@Microsoft.KeyVault(SecretUri=${secretsUrl}oauth-app-secret)' : ''
    OAUTH_APP_CERTIFICATE: oauthCredential == 'certificate' ? '@Microsoft.KeyVault(SecretUri=${secretsUrl}oauth-app-certificate)' : ''
    OAUTH_APP_AUTHORITY: oauthAuthority
    OAUTH_APP_CLOUD: oauthCloud
    OAUTH_APP_EXTRA_SCOPES: 'User.ReadBasic.All Mail.ReadWrite.Shared Mail.Send.Shared'
    OAUTH_APP_READER: ''
  }
}

resource platformLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: app
  name: 'workspace'
  properties: {
    workspaceId: workspaceId
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

@description('Name of the site.')
output siteName string = app.name
